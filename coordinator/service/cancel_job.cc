// CancelJob: idempotent; answers once the cancellation is durable, not once the attempt has ended.
#include <charconv>

#include "coordinator/service/job_service.h"
#include "coordinator/service/rich_error.h"

namespace tandem::service {
namespace {

// "" is no condition.
Result<int64_t> RevisionOf(const std::string& etag) {
  int64_t revision = 0;
  if (etag.empty()) return revision;
  const auto parsed = std::from_chars(etag.data(), etag.data() + etag.size(), revision);
  if (parsed.ec == std::errc() && parsed.ptr == etag.data() + etag.size() && revision > 0) {
    return revision;
  }
  return InvalidArgument("etag is '" + etag.substr(0, 200) +
                         "'; must be the etag of the job as last read, or empty");
}

}  // namespace

grpc::ServerUnaryReactor* JobService::CancelJob(grpc::CallbackServerContext* context,
                                                const v1::CancelJobRequest* request, v1::Job* job) {
  const Result<int64_t> etag = RevisionOf(request->etag());
  if (!etag.ok()) return FinishNow(context, ToGrpc(etag.status()));
  const Result<v1::Job> found = desk_.jobs.Find(request->name());
  if (!found.ok()) return FinishNow(context, ToGrpc(found.status()));
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const Status asked = desk_.loop.Ask(
      [&](core::RequestToken token) {
        return core::JobCancelRequested{token, found->uid(), *etag};
      },
      [this, job, reactor](const core::Reply& reply) {
        if (!reply.status.ok()) return reactor->Finish(ToGrpc(reply.status));
        Result<v1::Job> now = desk_.jobs.Find(reply.job);
        if (now.ok()) *job = std::move(*now);
        reactor->Finish(ToGrpc(now.status()));
      });
  if (!asked.ok()) reactor->Finish(ToGrpc(asked));
  return reactor;
}

}  // namespace tandem::service
