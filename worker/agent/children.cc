#include "worker/agent/children.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/files.h"

namespace tandem::agent {
namespace {

// Everything that the child needs, made before fork: after it only async-signal-safe calls are
// allowed.
struct Prepared {
  std::string program;
  std::vector<char*> argv;
  std::vector<char*> environment;
  const char* folder = "/";
  int null_fd = -1;
  int out_fd = -1;
  int err_fd = -1;
  int error_pipe = -1;  // close-on-exec: its end tells the parent that exec has worked
  pid_t parent = 0;
};

std::vector<char*> Pointers(const std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  pointers.reserve(texts.size() + 1);
  for (const std::string& text : texts) pointers.push_back(const_cast<char*>(text.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

std::string FindProgram(const std::string& name) {
  if (name.find('/') != std::string::npos) return name;
  const char* path = std::getenv("PATH");
  const std::string folders = path == nullptr ? "/usr/bin:/bin" : path;
  for (size_t start = 0; start <= folders.size();) {
    const size_t end = std::min(folders.find(':', start), folders.size());
    const std::string candidate = JoinPath(folders.substr(start, end - start), name);
    if (access(candidate.c_str(), X_OK) == 0 && !IsFolder(candidate)) return candidate;
    start = end + 1;
  }
  return "";
}

[[noreturn]] void RunChild(const Prepared& child) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != child.parent) _exit(127);  // it died before the line above
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  signal(SIGPIPE, SIG_DFL);
  bool ready = dup2(child.null_fd, STDIN_FILENO) >= 0 && dup2(child.out_fd, STDOUT_FILENO) >= 0 &&
               dup2(child.err_fd, STDERR_FILENO) >= 0 && chdir(child.folder) == 0;
  // Libraries may have opened descriptors without O_CLOEXEC.
  syscall(SYS_close_range, 3u, ~0u, CLOSE_RANGE_CLOEXEC);
  if (ready) execve(child.program.c_str(), child.argv.data(), child.environment.data());
  const int error = errno;
  (void)!write(child.error_pipe, &error, sizeof error);
  _exit(127);
}

// A descriptor that closes itself.
class Fd {
 public:
  explicit Fd(int fd = -1) : fd_(fd) {}
  ~Fd() { reset(); }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  int get() const { return fd_; }
  void reset(int fd = -1) {
    if (fd_ >= 0) close(fd_);
    fd_ = fd;
  }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

Status OpenPipe(Fd& read_end, Fd& write_end) {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return ErrnoStatus("pipe");
  read_end.reset(fds[0]);
  write_end.reset(fds[1]);
  return Status::Ok();
}

Status OpenForAppend(const std::string& path, Fd& fd) {
  fd.reset(open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  return fd.get() < 0 ? ErrnoStatus(path) : Status::Ok();
}

}  // namespace

std::string ChildExit::ToString() const {
  if (signal == 0) return "left with code " + std::to_string(code);
  return "was killed by signal " + std::to_string(signal) + " (" + strsignal(signal) + ")";
}

Result<StartedChild> Children::Start(const Command& command, OnExit on_exit) {
  Prepared child;
  child.program = FindProgram(command.argv.at(0));
  if (child.program.empty()) return NotFound(command.argv[0] + ": not found in PATH");
  Fd null(open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (null.get() < 0) return ErrnoStatus("/dev/null");
  Fd out_read, out_write, err, error_read, error_write;
  TANDEM_RETURN_IF_ERROR(OpenForAppend(command.err_path, err));
  TANDEM_RETURN_IF_ERROR(command.out_path.empty() ? OpenPipe(out_read, out_write)
                                                  : OpenForAppend(command.out_path, out_write));
  TANDEM_RETURN_IF_ERROR(OpenPipe(error_read, error_write));
  child.argv = Pointers(command.argv);
  child.environment = Pointers(command.environment);
  child.folder = command.folder.c_str();
  child.null_fd = null.get();
  child.out_fd = out_write.get();
  child.err_fd = err.get();
  child.error_pipe = error_write.get();
  child.parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) return ErrnoStatus("fork");
  if (pid == 0) RunChild(child);
  setpgid(pid, pid);  // both do it: whoever comes first
  error_write.reset();
  int error = 0;
  ssize_t got = 0;
  do {
    got = read(error_read.get(), &error, sizeof error);
  } while (got < 0 && errno == EINTR);
  if (got == sizeof error) {
    waitpid(pid, nullptr, 0);
    errno = error;
    return ErrnoStatus("cannot run " + child.program);
  }
  running_[pid] = std::move(on_exit);
  if (out_read.get() >= 0) fcntl(out_read.get(), F_SETFL, O_NONBLOCK);
  return StartedChild{pid, out_read.release()};
}

void Children::Reap() {
  int status = 0;
  for (pid_t pid = 0; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
    const auto found = running_.find(pid);
    if (found == running_.end()) continue;  // an orphan of an attempt
    const OnExit on_exit = std::move(found->second);
    running_.erase(found);
    ChildExit exit;
    if (WIFSIGNALED(status)) exit.signal = WTERMSIG(status);
    exit.code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    on_exit(exit);
  }
}

std::vector<std::string> InheritedEnvironment(const std::vector<std::string>& names) {
  std::vector<std::string> environment;
  for (const std::string& name : names) {
    const char* value = std::getenv(name.c_str());
    if (value != nullptr) environment.push_back(name + "=" + value);
  }
  return environment;
}

const std::vector<std::string>& InheritedNames() {
  static const std::vector<std::string> kNames = {"PATH",
                                                  "HOME",
                                                  "USER",
                                                  "LANG",
                                                  "LC_ALL",
                                                  "TZ",
                                                  "LD_LIBRARY_PATH",
                                                  "CUDA_DEVICE_ORDER",
                                                  "PYTORCH_ALLOC_CONF"};
  return kNames;
}

}  // namespace tandem::agent
