#include "worker/agent/event_loop.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <utility>

namespace tandem::agent {
namespace {

sigset_t SetOf(const std::vector<int>& signals) {
  sigset_t set;
  sigemptyset(&set);
  for (int number : signals) sigaddset(&set, number);
  return set;
}

}  // namespace

void EventLoop::BlockSignals(const std::vector<int>& signals) {
  const sigset_t set = SetOf(signals);
  TANDEM_CHECK(pthread_sigmask(SIG_BLOCK, &set, nullptr) == 0);
}

Result<std::unique_ptr<EventLoop>> EventLoop::Make(const std::vector<int>& signals) {
  const sigset_t set = SetOf(signals);
  const int signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  if (signal_fd < 0) return ErrnoStatus("signalfd");
  const int wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wake_fd < 0) {
    close(signal_fd);
    return ErrnoStatus("eventfd");
  }
  return std::unique_ptr<EventLoop>(new EventLoop(signal_fd, wake_fd));
}

EventLoop::~EventLoop() {
  close(signal_fd_);
  close(wake_fd_);
}

void EventLoop::Watch(int fd, std::function<void()> on_readable) {
  watched_[fd] = std::make_shared<std::function<void()>>(std::move(on_readable));
}

void EventLoop::Unwatch(int fd) {
  watched_.erase(fd);
}

void EventLoop::Post(std::function<void()> closure) {
  {
    MutexLock lock(mu_);
    posted_.push_back(std::move(closure));
  }
  const uint64_t one = 1;
  (void)!write(wake_fd_, &one, sizeof one);
}

void EventLoop::RunPosted() {
  std::vector<std::function<void()>> batch;
  {
    MutexLock lock(mu_);
    batch.swap(posted_);
  }
  for (const auto& closure : batch) closure();
}

void EventLoop::Wait(int64_t tick_ms, const std::function<void(int)>& on_signal) {
  std::vector<pollfd> fds = {{signal_fd_, POLLIN, 0}, {wake_fd_, POLLIN, 0}};
  for (const auto& [fd, callback] : watched_) fds.push_back({fd, POLLIN, 0});
  if (poll(fds.data(), fds.size(), static_cast<int>(tick_ms)) <= 0) return;
  if (fds[1].revents != 0) {
    uint64_t count = 0;
    (void)!read(wake_fd_, &count, sizeof count);
  }
  // Descriptors before signals: what a child wrote is read before its end is noticed.
  for (size_t i = 2; i < fds.size(); ++i) {
    if (fds[i].revents == 0) continue;
    const auto found = watched_.find(fds[i].fd);  // an earlier callback may have unwatched it
    if (found == watched_.end()) continue;
    const auto callback = found->second;
    (*callback)();
  }
  signalfd_siginfo info{};
  while (read(signal_fd_, &info, sizeof info) == sizeof info) {
    on_signal(static_cast<int>(info.ssi_signo));
  }
}

void EventLoop::Run(const std::function<void(int)>& on_signal, const std::function<void()>& on_tick,
                    int64_t tick_ms) {
  while (!stopped_) {
    Wait(tick_ms, on_signal);
    RunPosted();
    on_tick();
  }
}

}  // namespace tandem::agent
