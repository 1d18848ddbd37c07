#include "tests/unit/store/sample_rows.h"

#include <stdlib.h>

#include "base/files.h"

namespace tandem::store {

core::Job SampleJob(const std::string& uid) {
  core::Job job;
  job.uid = uid;
  job.project = "default";
  job.name = "name of " + uid;
  job.priority = -3;
  job.slots = 4;
  job.gpus = 4;
  job.spec = core::MakeBlob(std::string("spec\0with zero", 14));
  job.spec_digest = "digest";
  job.submit_revision = 11;
  job.create_wall_ms = 12;
  job.state = core::JobState::kCancelling;
  job.revision = 13;
  job.epoch = 14;
  job.attempt = {core::AttemptState::kDraining, "w1", "incarnation", core::Cause::kOom};
  job.message = "a \"message\" with \xc3\xa4 and \xff";
  job.reason = "OOM";
  job.start_wall_ms = 15;
  job.end_wall_ms = 16;
  job.ends_in_a_row = 17;
  job.charged_ends = 18;
  job.committed_stage = 19;
  job.committed_step = 20;
  job.checkpoint = "/checkpoint";
  job.report = core::MakeBlob("report");
  job.artifact = "/artifact";
  job.report_path = "/report.html";
  return job;
}

core::Worker SampleWorker(const std::string& name) {
  core::Worker worker;
  worker.name = name;
  worker.incarnation = "b";
  worker.former_incarnation = "a";
  worker.slots = 8;
  worker.gpus = 6;
  worker.host = "host";
  worker.version = "1";
  worker.device = "cpu";
  worker.metrics_address = "127.0.0.1:1";
  worker.drain = core::Drain::kByOperator;
  return worker;
}

core::JobEvent SampleEvent(core::Revision revision, const std::string& uid) {
  return {revision,
          uid,
          3,
          1'700'000'000'000,
          "started",
          "message",
          core::JobState::kAdmitted,
          core::JobState::kRunning,
          "reason"};
}

core::Persist SamplePersist(core::Revision revision) {
  const std::string uid = "u" + std::to_string(revision);
  core::Persist persist;
  persist.jobs.push_back(SampleJob(uid));
  persist.events.push_back(SampleEvent(revision, uid));
  persist.requests.push_back({"r" + std::to_string(revision), "digest", uid, 5});
  persist.workers.push_back(SampleWorker("w" + std::to_string(revision)));
  return persist;
}

TemporaryFolder::TemporaryFolder() {
  const char* base = getenv("TMPDIR");
  path_ = std::string(base == nullptr ? "/tmp" : base) + "/tandem-store-XXXXXX";
  TANDEM_CHECK(mkdtemp(path_.data()) != nullptr);
}

TemporaryFolder::~TemporaryFolder() {
  [[maybe_unused]] const Status ignored = RemoveTree(path_);
}

std::string TemporaryFolder::File(const std::string& name) const {
  return JoinPath(path_, name);
}

}  // namespace tandem::store
