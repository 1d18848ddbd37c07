#include "cli/interrupt.h"

#include <pthread.h>
#include <unistd.h>

#include <utility>

#include "cli/exit_code.h"

namespace tandem::cli {

Interrupts::Interrupts() {
  sigemptyset(&signals_);
  for (const int signal : {SIGINT, SIGTERM, SIGUSR2}) sigaddset(&signals_, signal);
  pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
  thread_ = std::thread([this] { Wait(); });
}

Interrupts::~Interrupts() {
  pthread_kill(thread_.native_handle(), SIGUSR2);  // ours alone: it ends the waiting thread
  thread_.join();
}

void Interrupts::Set(std::function<void(int)> callback) {
  MutexLock lock(mu_);
  called_.wait(mu_, [this]() TANDEM_REQUIRES(mu_) { return !calling_; });
  callback_ = std::move(callback);
}

void Interrupts::Wait() {
  for (int count = 1;; ++count) {
    int signal = 0;
    if (sigwait(&signals_, &signal) != 0 || signal == SIGUSR2) return;
    std::function<void(int)> callback;
    {
      MutexLock lock(mu_);
      callback = callback_;
      calling_ = true;
    }
    if (!callback) _exit(kExitInterrupted);
    callback(count);
    {
      MutexLock lock(mu_);
      calling_ = false;
    }
    called_.notify_all();
  }
}

StopRequest::StopRequest(Interrupts& interrupts) : interrupts_(interrupts) {
  interrupts_.Set([this](int count) {
    if (count > 1) _exit(kExitInterrupted);
    asked_ = true;
  });
}

}  // namespace tandem::cli
