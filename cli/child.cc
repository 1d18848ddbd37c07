#include "cli/child.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <utility>

#include "base/clock.h"

namespace tandem::cli {
namespace {

constexpr int64_t kQuickEndMs = 10'000;
constexpr int kMostQuickEnds = 5;
constexpr int64_t kFirstPauseMs = 100;
constexpr int64_t kLongestPauseMs = 5'000;
constexpr int64_t kTailBytes = 16 * 1024;

std::string EndWords(int wait_status) {
  if (WIFSIGNALED(wait_status))
    return "was killed by signal " + std::to_string(WTERMSIG(wait_status));
  return "left with exit code " + std::to_string(WEXITSTATUS(wait_status));
}

// Own session, no inherited descriptors, a clean signal mask.
Status Spawn(const std::vector<std::string>& command, const std::string& log_path, pid_t* pid) {
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&files);
  posix_spawnattr_init(&attributes);
  posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, log_path.c_str(),
                                   O_WRONLY | O_CREAT | O_APPEND, 0644);
  posix_spawn_file_actions_adddup2(&files, STDOUT_FILENO, STDERR_FILENO);
  posix_spawn_file_actions_addclosefrom_np(&files, STDERR_FILENO + 1);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);
  std::vector<char*> arguments;
  for (const auto& argument : command) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  const int error =
      posix_spawn(pid, command[0].c_str(), &files, &attributes, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&files);
  posix_spawnattr_destroy(&attributes);
  if (error == 0) return Status::Ok();
  return {Code::kInternal, "cannot start " + command[0] + ": " + std::strerror(error)};
}

}  // namespace

Child::Child(std::string name, std::vector<std::string> command, std::string log_path)
    : name_(std::move(name)), command_(std::move(command)), log_path_(std::move(log_path)) {}

Child::~Child() {
  if (!IsRunning()) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

Status Child::Start() {
  TANDEM_RETURN_IF_ERROR(Spawn(command_, log_path_, &pid_));
  started_ms_ = Clock::System().MonotonicMs();
  return Status::Ok();
}

bool Child::IsRunning() {
  if (pid_ <= 0) return false;
  int wait_status = 0;
  if (waitpid(pid_, &wait_status, WNOHANG) == 0) return true;
  wait_status_ = wait_status;
  ended_ms_ = Clock::System().MonotonicMs();
  quick_ends_ = ended_ms_ - started_ms_ < kQuickEndMs ? quick_ends_ + 1 : 1;
  pid_ = -1;
  return false;
}

Status Child::KeepRunning() {
  if (IsRunning()) return Status::Ok();
  // A wrong flag or a refused folder does not heal.
  const bool hopeless = WIFEXITED(wait_status_) && WEXITSTATUS(wait_status_) == 2;
  if (hopeless || quick_ends_ >= kMostQuickEnds) {
    return {Code::kInternal, name_ + " " + EndWords(wait_status_) + "; the last lines of " +
                                 log_path_ + ":\n" + LastLines(log_path_, 10)};
  }
  const int64_t pause = std::min(kFirstPauseMs << std::min(quick_ends_, 6), kLongestPauseMs);
  if (Clock::System().MonotonicMs() - ended_ms_ < pause) return Status::Ok();
  return Start();
}

void Child::Signal(int signal) {
  if (pid_ > 0) kill(pid_, signal);
}

std::string LastLines(const std::string& path, int lines) {
  struct stat found {};
  if (stat(path.c_str(), &found) != 0) return "";
  std::ifstream file(path);
  file.seekg(std::max<int64_t>(0, found.st_size - kTailBytes));
  std::vector<std::string> tail;
  for (std::string line; std::getline(file, line);) {
    tail.push_back(line);
    if (tail.size() > static_cast<size_t>(lines)) tail.erase(tail.begin());
  }
  std::string text;
  for (const auto& line : tail) text += "  " + line + "\n";
  return text;
}

}  // namespace tandem::cli
