// PythonStep: one `python -m MODULE ...` of an attempt, before or after its ranks.
//
// stdout is read line by line (JSON lines by contract) and kept in <name>.out, stderr goes to
// <name>.err of the attempt folder. on_done is called once, on the loop's thread, after the last
// line. Destroying a step that runs kills it silently. Confined to the loop's thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "worker/agent/children.h"
#include "worker/agent/event_loop.h"

namespace tandem::agent {

struct PythonCommand {
  std::string name;  // of the step, names its files
  std::string python;
  std::string python_path;
  std::string module;  // tandem.prepare
  std::vector<std::string> arguments;
  std::string attempt_folder;
  std::string mark;
  int64_t threads = 1;
};

class PythonStep {
 public:
  using OnLine = std::function<void(const std::string&)>;
  using OnDone = std::function<void(ChildExit)>;
  static Result<std::unique_ptr<PythonStep>> Start(EventLoop& loop, Children& children,
                                                   const PythonCommand& command, OnLine on_line,
                                                   OnDone on_done);
  ~PythonStep();
  PythonStep(const PythonStep&) = delete;
  PythonStep& operator=(const PythonStep&) = delete;

 private:
  struct Shared;  // outlives the step until its child is reaped
  explicit PythonStep(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}
  std::shared_ptr<Shared> shared_;
};

}  // namespace tandem::agent
