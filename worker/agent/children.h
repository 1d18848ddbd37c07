// Children: starts programs and notices their ends.
//
// Each child leads a process group of its own, is killed when the agent dies (PR_SET_PDEATHSIG, so
// Start must be called on a thread that lives as long as the process), has /dev/null as stdin and
// no other descriptor of ours. Confined to the loop's thread. Make it the process's only waiter:
// Reap takes every dead child, orphans that the kernel re-parented to us included.
#pragma once

#include <sys/types.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/status.h"

namespace tandem::agent {

struct Command {
  std::vector<std::string> argv;         // argv[0] is looked up in PATH where it has no '/'
  std::vector<std::string> environment;  // "NAME=value"; nothing else is inherited
  std::string folder = "/";
  std::string out_path;  // stdout is appended here; empty: to a pipe
  std::string err_path;  // stderr is appended here
};

struct ChildExit {
  int code = 0;    // the exit code, or 128 + signal
  int signal = 0;  // 0: it left by itself
  // "left with code 3", "was killed by signal 9 (Killed)"
  std::string ToString() const;
};

struct StartedChild {
  pid_t pid = 0;
  int out_fd = -1;  // non-blocking, the caller's to close; -1 where out_path is set
};

class Children {
 public:
  using OnExit = std::function<void(ChildExit)>;
  // kNotFound and the like when the program cannot be run. on_exit is called by Reap.
  Result<StartedChild> Start(const Command& command, OnExit on_exit);
  // Call on SIGCHLD.
  void Reap();

 private:
  std::map<pid_t, OnExit> running_;
};

// NAME=value of this process for each of `names` that is set.
std::vector<std::string> InheritedEnvironment(const std::vector<std::string>& names);
// The names that every child gets: PATH, HOME, locale, library paths.
const std::vector<std::string>& InheritedNames();

}  // namespace tandem::agent
