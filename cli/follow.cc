#include "cli/follow.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/clock.h"
#include "cli/job_text.h"

namespace tandem::cli {
namespace {

constexpr int64_t kFirstRetryMs = 200;
constexpr int64_t kLongestRetryMs = 3'000;

bool IsPassing(Code code) {
  return code == Code::kUnavailable || code == Code::kResourceExhausted ||
         code == Code::kOutOfRange || code == Code::kOk || code == Code::kDeadlineExceeded;
}

}  // namespace

Follower::Follower(Client& client, ProgressPrinter& progress, int64_t patience_ms)
    : client_(client), progress_(progress), patience_ms_(patience_ms) {}

Result<v1::Job> Follower::Run(const std::string& name) {
  const Clock& clock = Clock::System();
  int64_t pause_ms = kFirstRetryMs;
  int64_t lost_since = 0;
  for (;;) {
    v1::Job job;
    Status status;
    const int64_t before = revision_;
    if (ReadStream(name, &job, &status)) {
      progress_.Finish();
      // The stream's job may be cut to what changed; the answer to Get is whole.
      auto whole = client_.GetJob(name);
      return whole.ok() ? std::move(whole) : Result<v1::Job>(job);
    }
    if (IsStopped()) return Status(Code::kCancelled, "stopped following " + ShortName(name));
    if (!IsPassing(status.code())) return status;
    if (status.code() == Code::kUnavailable && !has_answered_ && patience_ms_ > 0) return status;
    if (status.code() == Code::kOutOfRange) revision_ = 0;  // compacted: start from the present
    if (revision_ != before) pause_ms = kFirstRetryMs;
    if (lost_since == 0 || revision_ != before) {
      lost_since = clock.MonotonicMs();
      if (status.code() == Code::kUnavailable && !std::exchange(is_lost_, true)) {
        progress_.Note("the connection to the coordinator is lost; trying again");
      }
    }
    if (patience_ms_ > 0 && clock.MonotonicMs() - lost_since > patience_ms_) return status;
    if (!Pause(pause_ms)) return Status(Code::kCancelled, "stopped following " + ShortName(name));
    pause_ms = std::min(2 * pause_ms, kLongestRetryMs);
  }
}

bool Follower::ReadStream(const std::string& name, v1::Job* job, Status* status) {
  grpc::ClientContext context;
  {
    MutexLock lock(mu_);
    if (stopped_) return false;
    context_ = &context;
  }
  v1::WatchJobsRequest request;
  request.set_name(name);
  request.set_start_revision(revision_);
  const auto stream = client_.WatchJobs(context, request);
  bool ended = false;
  v1::WatchJobsResponse response;
  while (!ended && stream->Read(&response)) {
    has_answered_ = true;
    NoteCoordinator(response);
    revision_ = std::max(revision_, response.revision());
    for (const auto& changed : response.jobs()) {
      progress_.Show(changed);
      if (IsTerminal(changed.state())) {
        *job = changed;
        ended = true;
      }
    }
  }
  if (ended) context.TryCancel();
  *status = client_.ToStatus(stream->Finish());
  MutexLock lock(mu_);
  context_ = nullptr;
  return ended;
}

void Follower::NoteCoordinator(const v1::WatchJobsResponse& response) {
  if (std::exchange(is_lost_, false)) progress_.Note("the coordinator answers again");
  if (response.store_failure() == store_failure_) return;
  store_failure_ = response.store_failure();
  progress_.Note(store_failure_.empty()
                     ? "the coordinator can write again"
                     : "the coordinator cannot write at the moment: " + store_failure_ +
                           "; what runs goes on, and this waits");
}

void Follower::Stop() {
  MutexLock lock(mu_);
  stopped_ = true;
  if (context_ != nullptr) context_->TryCancel();
  wake_.notify_all();
}

bool Follower::IsStopped() {
  MutexLock lock(mu_);
  return stopped_;
}

bool Follower::Pause(int64_t milliseconds) {
  mu_.lock();
  wake_.wait_for(mu_, std::chrono::milliseconds(milliseconds), [this]() { return stopped_; });
  const bool go_on = !stopped_;
  mu_.unlock();
  return go_on;
}

}  // namespace tandem::cli
