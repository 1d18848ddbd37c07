// CreateJob: validate everything at once, look at the paths through a ready agent, then ask the
// core.
#include <sys/random.h>

#include <memory>
#include <utility>

#include "base/digest.h"
#include "coordinator/service/job_service.h"
#include "coordinator/service/rich_error.h"
#include "spec/spec.h"

namespace tandem::service {
namespace {

constexpr int64_t kInspectMs = 2'000;
constexpr size_t kMaxRequestId = 128;
constexpr char kNotLookedAt[] =
    "no worker was ready to look at the model and data paths; they are checked at launch";

// 16 hex digits: unique without asking anybody, short enough for socket paths below the job's
// folder.
Result<std::string> FreshUid() {
  unsigned char bytes[8];
  if (getrandom(bytes, sizeof bytes, 0) != static_cast<ssize_t>(sizeof bytes)) {
    return ErrnoStatus("getrandom");
  }
  std::string uid;
  for (const unsigned char byte : bytes) {
    uid.push_back("0123456789abcdef"[byte >> 4]);
    uid.push_back("0123456789abcdef"[byte & 15]);
  }
  return uid;
}

std::vector<FieldViolation> CheckRequest(const v1::CreateJobRequest& request) {
  std::vector<FieldViolation> found;
  if (request.request_id().size() > kMaxRequestId) {
    found.emplace_back(
        "request_id",
        "request_id has " + std::to_string(request.request_id().size()) + " bytes; at most 128");
  }
  if (request.spec().ByteSizeLong() > kMaxSpecBytes) {
    found.emplace_back("spec", "spec has " + std::to_string(request.spec().ByteSizeLong()) +
                                   " bytes; at most 1048576");
  }
  if (!found.empty()) return found;
  if (!request.has_spec()) {
    return {{"spec", "spec is missing; send the job to be created"}};
  }
  for (const Violation& violation : Validate(request.spec())) {
    found.emplace_back(violation.field, violation.message);
  }
  return found;
}

// One CreateJob on its way: from the handler to the agent's answer to the core's reply. Owned by
// whichever continuation is outstanding; gRPC keeps request and response alive until Finish.
class Creation : public std::enable_shared_from_this<Creation> {
 public:
  Creation(const Desk& desk, const v1::CreateJobRequest& request, v1::Job* job,
           grpc::ServerUnaryReactor* reactor)
      : desk_(desk),
        request_(request),
        job_(job),
        reactor_(reactor),
        spec_(Resolve(request.spec())) {}

  void Inspect() {
    const std::string worker = desk_.fleet.HasAnswered(request_.request_id()) ? "" : ReadyWorker();
    if (worker.empty()) return OnInspected("");
    v1::Inspect question;
    *question.mutable_spec() = spec_;
    desk_.relay.AskInspect(
        worker, std::move(question), desk_.clock.MonotonicMs() + kInspectMs,
        [self = shared_from_this()](Result<v1::InspectResult> answer) { self->OnAnswer(answer); });
  }

 private:
  std::string ReadyWorker() const {
    for (const std::string& id : desk_.fleet.Ready()) {
      if (desk_.hub.IsConnected(id)) return id;
    }
    return "";
  }

  void OnAnswer(const Result<v1::InspectResult>& answer) {
    if (!answer.ok()) return OnInspected(kNotLookedAt);
    std::vector<FieldViolation> found;
    for (const v1::Violation& violation : answer->violations()) {
      found.emplace_back(violation.field(), violation.message());
    }
    if (found.empty()) return OnInspected("");
    Finish("invalid", ToGrpc(found));
  }

  void OnInspected(std::string warning) {
    if (warning.empty() && ReadyWorker().empty()) warning = kNotLookedAt;
    if (request_.validate_only()) return Preview(warning);
    Result<std::string> uid = FreshUid();
    if (!uid.ok()) return Finish("refused", ToGrpc(uid.status()));
    const auto event = [&](core::RequestToken token) { return EventOf(token, *uid, warning); };
    const Status asked = desk_.loop.Ask(
        event, [self = shared_from_this()](const core::Reply& reply) { self->OnReply(reply); });
    if (!asked.ok()) Finish("refused", ToGrpc(asked));
  }

  core::Event EventOf(core::RequestToken token, const std::string& uid,
                      const std::string& warning) const {
    core::JobCreated event;
    event.token = token;
    event.request_id = request_.request_id();
    event.request_digest = Sha256Hex(CanonicalJson(spec_));
    event.uid = uid;
    event.project = spec_.project();
    event.name = spec_.name();
    event.priority = spec_.priority();
    event.slots = spec_.parallelism().data();
    event.gpus = spec_.parallelism().device() == "cuda" ? event.slots : 0;
    event.spec = core::MakeBlob(spec_.SerializeAsString());
    event.spec_digest = SpecSha256(spec_);
    event.message = warning;
    return event;
  }

  void Preview(const std::string& warning) {
    *job_->mutable_spec() = spec_;
    job_->set_slots(spec_.parallelism().data());
    job_->set_message(warning);
    Finish("validated", grpc::Status::OK);
  }

  void OnReply(const core::Reply& reply) {
    if (!reply.status.ok()) {
      const bool callers = reply.status.code() == Code::kInvalidArgument;
      return Finish(callers ? "invalid" : "refused", ToGrpc(reply.status));
    }
    Result<v1::Job> job = desk_.jobs.Find(reply.job);
    if (!job.ok()) return Finish("refused", ToGrpc(job.status()));
    *job_ = std::move(*job);
    Finish("accepted", grpc::Status::OK);
  }

  void Finish(const char* result, const grpc::Status& status) {
    desk_.metrics.CountSubmission(result);
    reactor_->Finish(status);
  }

  const Desk desk_;
  const v1::CreateJobRequest& request_;
  v1::Job* const job_;
  grpc::ServerUnaryReactor* const reactor_;
  const v1::JobSpec spec_;  // resolved
};

}  // namespace

grpc::ServerUnaryReactor* JobService::CreateJob(grpc::CallbackServerContext* context,
                                                const v1::CreateJobRequest* request, v1::Job* job) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const std::vector<FieldViolation> found = CheckRequest(*request);
  if (!found.empty()) {
    desk_.metrics.CountSubmission("invalid");
    reactor->Finish(ToGrpc(found));
    return reactor;
  }
  std::make_shared<Creation>(desk_, *request, job, reactor)->Inspect();
  return reactor;
}

}  // namespace tandem::service
