// WatchJobs: every change after a revision, gap-free and in order, then live.
#include <memory>
#include <utility>

#include "coordinator/service/job_service.h"
#include "coordinator/service/rich_error.h"

namespace tandem::service {
namespace {

constexpr size_t kWatcherQueue = 1024;

// A watcher that does not keep up is ended rather than skipped: it knows its last revision and goes
// on from there.
class WatchStream
    : public StreamReactor<grpc::ServerWriteReactor<v1::WatchJobsResponse>, v1::WatchJobsResponse>,
      public Watcher {
 public:
  explicit WatchStream(JobBoard& board) : StreamReactor(kWatcherQueue), board_(board) {}

  void Start(const v1::WatchJobsRequest& request) {
    Hold();
    const auto self = std::static_pointer_cast<WatchStream>(shared_from_this());
    Status started =
        InvalidArgument("start_revision is " + std::to_string(request.start_revision()) +
                        "; must be 0 (the current state first) or the revision of "
                        "the last message received");
    if (request.start_revision() >= 0) {
      started = board_.Watch(self, request.name(), request.start_revision());
    }
    if (!started.ok()) Abort(ToGrpc(started));
  }

  bool Offer(v1::WatchJobsResponse message) override {
    if (Send(std::move(message))) return true;
    Abort({grpc::StatusCode::RESOURCE_EXHAUSTED,
           "1024 messages are waiting for this watcher; "
           "watch again from the last revision received"});
    return false;
  }
  bool HasRoom() const override { return waiting() * 2 < capacity(); }
  void End() override {
    Close(ToGrpc(
        Unavailable("the coordinator is stopping; watch again from the last revision received")));
  }

 private:
  void OnEnded() override { board_.Unwatch(this); }

  JobBoard& board_;
};

}  // namespace

grpc::ServerWriteReactor<v1::WatchJobsResponse>* JobService::WatchJobs(
    grpc::CallbackServerContext*, const v1::WatchJobsRequest* request) {
  const auto stream = std::make_shared<WatchStream>(desk_.jobs);
  stream->Start(*request);
  return stream.get();
}

}  // namespace tandem::service
