#include "worker/agent/python_step.h"

#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <utility>

#include "base/files.h"

namespace tandem::agent {
namespace {

constexpr size_t kMaxLineBytes = 1 << 20;

Command CommandOf(const PythonCommand& step) {
  Command command;
  command.argv = {step.python, "-m", step.module};
  command.argv.insert(command.argv.end(), step.arguments.begin(), step.arguments.end());
  command.environment = InheritedEnvironment(InheritedNames());
  const std::string threads = std::to_string(step.threads);
  for (const std::string& entry :
       {"PYTHONPATH=" + step.python_path, std::string("PYTHONUNBUFFERED=1"),
        std::string("PYTHONDONTWRITEBYTECODE=1"), std::string("PYTHONHASHSEED=0"),
        std::string("MPLBACKEND=Agg"), "RAYON_NUM_THREADS=" + threads, "OMP_NUM_THREADS=" + threads,
        step.mark}) {
    command.environment.push_back(entry);
  }
  command.folder = step.attempt_folder;
  command.err_path = JoinPath(step.attempt_folder, step.name + ".err");
  return command;
}

}  // namespace

struct PythonStep::Shared {
  EventLoop& loop;
  pid_t pid = 0;
  int out_fd = -1;
  int copy_fd = -1;
  std::string buffer;
  OnLine on_line;
  OnDone on_done;

  explicit Shared(EventLoop& its_loop) : loop(its_loop) {}
  ~Shared() { Close(); }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;

  void Close() {
    if (out_fd >= 0) {
      loop.Unwatch(out_fd);
      close(out_fd);
    }
    if (copy_fd >= 0) close(copy_fd);
    out_fd = copy_fd = -1;
  }

  void Read() {
    char bytes[16 * 1024];
    while (out_fd >= 0) {
      const ssize_t got = read(out_fd, bytes, sizeof bytes);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return;
      if (got == 0) return Close();
      (void)!write(copy_fd, bytes, static_cast<size_t>(got));
      buffer.append(bytes, static_cast<size_t>(got));
      TakeLines();
    }
  }

  void TakeLines() {
    size_t start = 0;
    for (size_t end = 0; (end = buffer.find('\n', start)) != std::string::npos; start = end + 1) {
      if (on_line) on_line(buffer.substr(start, end - start));
    }
    buffer.erase(0, start);
    if (buffer.size() > kMaxLineBytes) buffer.clear();
  }
};

Result<std::unique_ptr<PythonStep>> PythonStep::Start(EventLoop& loop, Children& children,
                                                      const PythonCommand& command, OnLine on_line,
                                                      OnDone on_done) {
  auto shared = std::make_shared<Shared>(loop);
  const std::string copy = JoinPath(command.attempt_folder, command.name + ".out");
  shared->copy_fd = open(copy.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (shared->copy_fd < 0) return ErrnoStatus(copy);
  shared->on_line = std::move(on_line);
  shared->on_done = std::move(on_done);
  TANDEM_ASSIGN_OR_RETURN(const StartedChild child,
                          children.Start(CommandOf(command), [shared](ChildExit exit) {
                            shared->Read();  // what it wrote last
                            shared->Close();
                            const OnDone done = std::exchange(shared->on_done, nullptr);
                            if (done) done(exit);
                          }));
  shared->pid = child.pid;
  shared->out_fd = child.out_fd;
  loop.Watch(child.out_fd, [shared] { shared->Read(); });
  return std::unique_ptr<PythonStep>(new PythonStep(std::move(shared)));
}

PythonStep::~PythonStep() {
  if (!shared_->on_done) return;  // it has ended
  shared_->on_done = nullptr;
  shared_->on_line = nullptr;
  kill(-shared_->pid, SIGKILL);
}

}  // namespace tandem::agent
