#include "cli/submission.h"

#include "base/digest.h"
#include "cli/job_text.h"
#include "cli/output.h"
#include "spec/spec.h"

namespace tandem::cli {
namespace {

constexpr int kMostRetries = 1000;

}  // namespace

Result<v1::Job> SubmitOnce(Client& client, const v1::JobSpec& spec, const std::string& verb,
                           const std::string& place) {
  const std::string digest = Sha256Hex(CanonicalJson(Resolve(spec)) + "\n" + place);
  for (int attempt = 1; attempt <= kMostRetries; ++attempt) {
    v1::CreateJobRequest request;
    *request.mutable_spec() = spec;
    request.set_request_id(verb + "-" + digest.substr(0, 32) + "-" + std::to_string(attempt));
    auto job = client.CreateJob(request);
    if (!job.ok()) return job;
    const bool failed =
        job->state() == v1::JOB_STATE_FAILED || job->state() == v1::JOB_STATE_CANCELLED;
    if (!failed) return job;
  }
  return FailedPrecondition("this job failed " + std::to_string(kMostRetries) + " times" +
                            (place.empty() ? "" : " in " + place) +
                            "; choose another --work folder, or change its name");
}

Status CancelOthers(Client& client, const std::set<std::string>& own_uids) {
  TANDEM_ASSIGN_OR_RETURN(const auto all, client.ListJobs({}));
  for (const auto& job : all.jobs()) {
    if (own_uids.contains(job.uid()) || IsTerminal(job.state())) continue;
    PrintErr("cancelling " + ShortName(job.name()) +
             ", which another job file left unfinished in this folder\n");
    const auto cancelled = client.CancelJob(job.name());
    if (!cancelled.ok()) return cancelled.status();
  }
  return Status::Ok();
}

}  // namespace tandem::cli
