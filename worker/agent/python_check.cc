#include "worker/agent/python_check.h"

#include <poll.h>
#include <unistd.h>

#include <csignal>
#include <optional>

#include "base/clock.h"
#include "worker/agent/children.h"

namespace tandem::agent {
namespace {

constexpr int64_t kDeadlineMs = 60'000;
// Errors are short and on stdout, which we read.
constexpr const char* kProgram =
    "import sys\n"
    "try:\n"
    "    import tokenizers, tandem\n"
    "except Exception as error:\n"
    "    print(error)\n"
    "    sys.exit(3)\n";

std::string ReadAll(int fd) {
  std::string text;
  char bytes[1024];
  for (ssize_t got = 0; (got = read(fd, bytes, sizeof bytes)) > 0;) {
    text.append(bytes, static_cast<size_t>(got));
  }
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

}  // namespace

std::string PythonFault(const std::string& python, const std::string& python_path) {
  Command command;
  command.argv = {python, "-c", kProgram};
  command.environment = InheritedEnvironment(InheritedNames());
  command.environment.push_back("PYTHONPATH=" + python_path);
  command.environment.push_back("PYTHONDONTWRITEBYTECODE=1");
  command.err_path = "/dev/null";
  Children children;
  std::optional<ChildExit> end;
  const auto started = children.Start(command, [&end](ChildExit exit) { end = exit; });
  const std::string advice =
      "; pass --python or set TANDEM_PYTHON to an interpreter with tokenizers; the package tandem "
      "is looked for in " +
      python_path + ", or in TANDEM_PYTHONPATH";
  if (!started.ok()) return "Python " + python + ": " + started.status().message() + advice;
  const Clock& clock = Clock::System();
  const int64_t deadline = clock.MonotonicMs() + kDeadlineMs;
  while (!end && clock.MonotonicMs() < deadline) {
    poll(nullptr, 0, 5);
    children.Reap();
  }
  if (!end) {
    kill(started->pid, SIGKILL);
    while (!end) {
      poll(nullptr, 0, 5);
      children.Reap();
    }
  }
  const std::string said = ReadAll(started->out_fd);
  close(started->out_fd);
  if (end->code == 0) return "";
  return "Python " + python + " cannot prepare data: " + (said.empty() ? end->ToString() : said) +
         advice;
}

}  // namespace tandem::agent
