// Attempts on one agent that lives through all of these tests: how each ends, and what the
// coordinator hears of it.
#include <signal.h>

#include <algorithm>

#include "base/files.h"
#include "tests/unit/agent/world.h"
#include "worker/agent/marked_processes.h"

namespace tandem::agent {
namespace {

class AttemptsTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    work_ = TemporaryFolder();
    coordinator_ = std::make_unique<FakeCoordinator>();
    worker_ = std::make_unique<WorkerProcess>(work_, coordinator_->address());
    coordinator_->AwaitRegistration(1);
  }
  static void TearDownTestSuite() {
    worker_.reset();
    coordinator_.reset();
  }
  static std::string Job(const std::string& uid) { return work_ + "/jobs/" + uid; }
  static size_t Marked(const std::string& uid, int64_t epoch) {
    return FindMarked(AttemptMark(work_ + "/workers/w", uid, epoch)).size();
  }
  // Pids of the attempt's processes whose executable has this name.
  static std::vector<pid_t> Pids(const std::string& uid, const std::string& name) {
    std::vector<pid_t> pids;
    for (pid_t pid : FindMarked(AttemptMark(work_ + "/workers/w", uid, 1))) {
      const auto comm = ReadFile("/proc/" + std::to_string(pid) + "/comm");
      if (comm.ok() && comm->substr(0, comm->size() - 1) == name.substr(0, 15)) pids.push_back(pid);
    }
    return pids;
  }

  static std::string work_;
  static std::unique_ptr<FakeCoordinator> coordinator_;
  static std::unique_ptr<WorkerProcess> worker_;
};
std::string AttemptsTest::work_;
std::unique_ptr<FakeCoordinator> AttemptsTest::coordinator_;
std::unique_ptr<WorkerProcess> AttemptsTest::worker_;

TEST_F(AttemptsTest, RunsToItsEndAndTellsEverything) {
  coordinator_->Launch("good", 1, "ok", 2);
  const v1::AttemptStatus end = coordinator_->AwaitEnd("good", 1);
  ASSERT_EQ(end.cause(), "OK") << end.detail();
  EXPECT_EQ(end.report().verdict(), "balanced");
  EXPECT_EQ(end.report().components().at("softmax").recovered(), 1);
  EXPECT_FALSE(end.report().components().at("none").has_recovered())
      << "an undefined share is not 0";
  EXPECT_EQ(end.artifact(), Job("good") + "/artifacts/model");
  EXPECT_EQ(end.report_path(), Job("good") + "/report.html");
  EXPECT_EQ(end.progress().stage_count(), 4) << "prepare, attention_transfer, evaluate, export";
  EXPECT_TRUE(end.resumable());
  EXPECT_TRUE(PathExists(end.report_path()));
  for (const char* name :
       {"plan.json", "prepare.json", "prepare.out", "mpirun.err", "rank-0.out", "rank-1.out"}) {
    EXPECT_TRUE(PathExists(Job("good") + "/attempts/1/" + name)) << name;
  }
  bool checkpoint = false;
  bool stage = false;
  for (const auto& message : coordinator_->Said()) {
    if (message.checkpoint().attempt().job_uid() == "good") {
      checkpoint = message.checkpoint().stage_index() == 1 && message.checkpoint().step() == 6 &&
                   message.checkpoint().bytes() == 12 &&
                   message.checkpoint().manifest_sha256() == "ab";
    }
    if (message.stage().attempt().job_uid() == "good") {
      stage = message.stage().stage_index() == 1 && message.stage().output_sha256() == "cd";
    }
  }
  EXPECT_TRUE(checkpoint);
  EXPECT_TRUE(stage);
  EXPECT_EQ(Marked("good", 1), 0u);
  EXPECT_FALSE(PathExists(work_ + "/workers/w/outbox/good-1.pb") &&
               !AwaitTrue("the outbox is empty",
                          [] { return !PathExists(work_ + "/workers/w/outbox/good-1.pb"); }));
}

TEST_F(AttemptsTest, EveryEndHasItsCause) {
  struct Case {
    const char* uid;
    const char* what;
    const char* cause;
    const char* detail;
  };
  const std::vector<Case> cases = {
      {"c1", "code-14-BUG", "RANK_EXIT", "code 14: rank 0: it is BUG"},
      {"c2", "code-10-BAD_PLAN", "BAD_PLAN", "it is BAD_PLAN"},
      {"c3", "code-11-none", "OOM", "last words"},
      {"c4", "code-12-NONFINITE_LOSS", "NONFINITE_LOSS", "it is"},
      {"c5", "code-13-DATA", "DATA", "it is DATA"},
      {"c6", "code-13-STORAGE", "STORAGE", "it is STORAGE"},
      {"c7", "code-16-none", "NONFINITE_LOSS", "code 16"},
      {"c8", "no-report", "RANK_EXIT", "without a report"},
      {"c9", "silent", "LAUNCH_FAILED", "code 9"},
      {"c10-bad-data", "ok", "DATA", "data.train[0]: line 3 is not JSON\ndata.train[1]: is empty"},
      {"c11-prepare-crash", "ok", "PREPARE_FAILED", "MemoryError: boom"},
      {"c12-prepare-silent", "ok", "PREPARE_FAILED", "named no result"},
      {"c13-report-crash", "ok", "REPORT_FAILED", "no plot"},
      {"c14", "former-epoch", "RANK_EXIT", "told to end"},
      {"c15", "daemon", "RANK_EXIT", "code 14"},
  };
  for (const Case& one : cases) coordinator_->Launch(one.uid, 2, one.what);
  for (const Case& one : cases) {
    const v1::AttemptStatus end = coordinator_->AwaitEnd(one.uid, 2);
    EXPECT_EQ(end.cause(), one.cause) << one.what << ": " << end.detail();
    EXPECT_NE(end.detail().find(one.detail), std::string::npos)
        << one.what << " wanted: " << one.detail << "\ngot: " << end.detail();
    EXPECT_EQ(Marked(one.uid, 2), 0u) << one.what << " left processes behind";
    EXPECT_FALSE(end.has_report());
  }
}

TEST_F(AttemptsTest, WhatTheSpecNamesIsLookedAtAgain) {
  v1::JobSpec spec = SmallSpec();
  spec.mutable_model()->set_path("/nowhere/model");
  coordinator_->Launch("lost-model", 1, "ok", spec);
  const v1::AttemptStatus end = coordinator_->AwaitEnd("lost-model", 1);
  EXPECT_EQ(end.cause(), "DATA");
  EXPECT_NE(end.detail().find("/nowhere/model does not exist"), std::string::npos) << end.detail();

  v1::ChannelResponse question;
  question.mutable_inspect()->set_request_id("q1");
  *question.mutable_inspect()->mutable_spec() = spec;
  coordinator_->Send(question);
  coordinator_->Await("the inspection's answer", [](const auto& said) {
    return std::any_of(said.begin(), said.end(), [](const auto& message) {
      const auto& result = message.inspect_result();
      return result.request_id() == "q1" && result.violations_size() == 1 &&
             result.violations(0).field() == "model.path";
    });
  });
}

TEST_F(AttemptsTest, AKilledRankOrMpirunEndsTheAttempt) {
  coordinator_->Launch("rank-killed", 1, "train", 2);
  coordinator_->Launch("mpirun-killed", 1, "train", 2);
  coordinator_->AwaitTraining("rank-killed", 1);
  coordinator_->AwaitTraining("mpirun-killed", 1);
  const auto ranks = Pids("rank-killed", "tandem-fake-rank");
  const auto mpiruns = Pids("mpirun-killed", "mpirun");
  ASSERT_EQ(ranks.size(), 2u);
  ASSERT_EQ(mpiruns.size(), 1u);
  kill(ranks[1], SIGKILL);
  kill(mpiruns[0], SIGKILL);
  v1::AttemptStatus end = coordinator_->AwaitEnd("rank-killed", 1);
  EXPECT_EQ(end.cause(), "RANK_EXIT");
  EXPECT_NE(end.detail().find("a rank was killed by signal 9"), std::string::npos) << end.detail();
  end = coordinator_->AwaitEnd("mpirun-killed", 1);
  EXPECT_EQ(end.cause(), "RANK_EXIT");
  EXPECT_NE(end.detail().find("mpirun was killed by signal 9"), std::string::npos) << end.detail();
  EXPECT_EQ(Marked("rank-killed", 1) + Marked("mpirun-killed", 1), 0u);
}

TEST_F(AttemptsTest, StopsWithACheckpointOrAtOnce) {
  coordinator_->Launch("asked", 1, "train", 2);
  coordinator_->Launch("killed", 1, "hang");
  coordinator_->Launch("early-prepare-long", 1, "ok");
  coordinator_->AwaitTraining("asked", 1);
  AwaitTrue("the hanging rank lives",
            [] { return Pids("killed", "tandem-fake-rank").size() == 1; });
  coordinator_->Stop("asked", 1, v1::Stop::KIND_CHECKPOINT_AND_STOP);
  coordinator_->Stop("killed", 1, v1::Stop::KIND_KILL);
  coordinator_->Stop("early-prepare-long", 1, v1::Stop::KIND_CHECKPOINT_AND_STOP);
  const v1::AttemptStatus asked = coordinator_->AwaitEnd("asked", 1);
  EXPECT_EQ(asked.cause(), "STOPPED");
  EXPECT_EQ(asked.detail(), "the test says so");
  EXPECT_TRUE(asked.resumable());
  EXPECT_GT(asked.progress().checkpoint_step(), 0);
  const v1::AttemptStatus killed = coordinator_->AwaitEnd("killed", 1);
  EXPECT_EQ(killed.cause(), "STOPPED");
  EXPECT_FALSE(killed.resumable());
  EXPECT_EQ(coordinator_->AwaitEnd("early-prepare-long", 1).cause(), "STOPPED");
  EXPECT_EQ(Marked("killed", 1) + Marked("early-prepare-long", 1), 0u);
}

TEST_F(AttemptsTest, ANewerEpochFencesTheOlderOne) {
  coordinator_->Launch("twice", 1, "train");
  coordinator_->AwaitTraining("twice", 1);
  coordinator_->Launch("twice", 2, "train");
  coordinator_->AwaitTraining("twice", 2);
  EXPECT_EQ(coordinator_->AwaitEnd("twice", 1).cause(), "FENCED");
  EXPECT_EQ(Marked("twice", 1), 0u);
  coordinator_->Launch("twice", 2, "train");  // repeated: nothing happens
  v1::ChannelResponse fence;
  fence.mutable_fence_below()->set_job_uid("twice");
  fence.mutable_fence_below()->set_epoch(4);
  coordinator_->Send(fence);
  EXPECT_EQ(coordinator_->AwaitEnd("twice", 2).cause(), "FENCED");
  coordinator_->Launch("twice", 3, "train");
  EXPECT_EQ(coordinator_->AwaitEnd("twice", 3).cause(), "FENCED")
      << "an order from before the fence";
}

TEST_F(AttemptsTest, MetricsShowALiveJobAndForgetIt) {
  coordinator_->Launch("measured", 1, "train");
  coordinator_->AwaitTraining("measured", 1);
  const std::string label = "{job_id=\"projects/default/jobs/train\"}";
  for (const std::string& line :
       {"tandem_train_loss" + label + " 0.5", "tandem_train_step_seconds" + label + " 0.25",
        "tandem_train_tokens_per_second" + label + " 100", "tandem_train_step" + label,
        "tandem_checkpoint_age_seconds" + label, std::string("tandem_build_info{version="),
        std::string("tandem_worker_connected 1")}) {
    AwaitTrue(line, [&] { return Scrape(work_).find(line) != std::string::npos; });
  }
  coordinator_->Stop("measured", 1, v1::Stop::KIND_KILL);
  coordinator_->AwaitEnd("measured", 1);
  AwaitTrue("its series are gone",
            [] { return Scrape(work_).find("job_id") == std::string::npos; });
  EXPECT_NE(Scrape(work_).find("tandem_attempts_total{cause=\"STOPPED\"}"), std::string::npos);
}

TEST_F(AttemptsTest, LogsAndReportsAreReadThroughTheChannel) {
  coordinator_->Launch("read", 1, "ok");
  ASSERT_EQ(coordinator_->AwaitEnd("read", 1).cause(), "OK");
  const auto ask = [](const std::string& id, const std::string& file, const std::string& format) {
    v1::ChannelResponse message;
    v1::ReadLogs& question = *message.mutable_read_logs();
    question.set_request_id(id);
    question.set_job_uid("read");
    question.set_file(file);
    question.set_report_format(format);
    coordinator_->Send(message);
    v1::LogChunk chunk;
    coordinator_->Await("the answer to " + id, [&](const auto& said) {
      for (const auto& one : said) {
        if (one.log_chunk().request_id() == id) chunk = one.log_chunk();
      }
      return chunk.request_id() == id;
    });
    return chunk;
  };
  const v1::LogChunk listing = ask("l1", "", "");
  EXPECT_NE(std::find(listing.files().begin(), listing.files().end(), "rank-0.out"),
            listing.files().end());
  EXPECT_EQ(ask("l2", "rank-0.out", "").data(), "rank 0 of epoch 1\n");
  EXPECT_EQ(ask("l3", "", "html").data(), "<html>report</html>\n");
  EXPECT_NE(ask("l4", "", "json").data().find("balanced"), std::string::npos);
  EXPECT_NE(ask("l5", "../1/plan.json", "").error(), "");
}

}  // namespace
}  // namespace tandem::agent
