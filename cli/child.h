// A child process of `tandem run`: own session, output appended to a log, dies with us
// (--die-with-parent), restarted when it crashes. Confined to the thread that starts it, which must
// live as long as the process: the kernel's death signal goes by thread.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"

namespace tandem::cli {

class Child {
 public:
  // command[0] is the binary's path.
  Child(std::string name, std::vector<std::string> command, std::string log_path);
  // Kills it if it still runs.
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  Status Start();
  // Reaps. True while it runs.
  bool IsRunning();
  // Starts it again if it has ended by itself, after a pause that doubles. Fails when it ended five
  // times within ten seconds of its start each, with the last lines of its log.
  Status KeepRunning();
  void Signal(int signal);

  pid_t pid() const { return pid_; }
  void set_command(std::vector<std::string> command) { command_ = std::move(command); }
  const std::string& name() const { return name_; }

 private:
  const std::string name_;
  std::vector<std::string> command_;
  const std::string log_path_;
  pid_t pid_ = -1;
  int wait_status_ = 0;
  int64_t started_ms_ = 0;
  int64_t ended_ms_ = 0;
  int quick_ends_ = 0;
};

// The last `lines` lines of a file, each indented by two spaces; "" if it cannot be read or is
// empty.
std::string LastLines(const std::string& path, int lines);

}  // namespace tandem::cli
