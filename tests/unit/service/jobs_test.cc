// Jobs over real gRPC: created once, found, listed in pages, run, cancelled, kept over a restart.
#include <gtest/gtest.h>

#include <set>

#include "tests/unit/service/fake_agent.h"

namespace tandem::service {
namespace {

TEST(Jobs, AJobGoesFromSubmissionToItsReport) {
  ServedCoordinator served;
  FakeAgent agent(served.channel());
  const v1::Job created = served.MustCreate("walk");
  EXPECT_EQ(created.name(), "projects/default/jobs/walk");
  EXPECT_EQ(created.uid().size(), 16u);
  EXPECT_GT(created.spec().stages_size(), 0) << "the spec is stored resolved";

  const v1::Launch launch = agent.AwaitLaunch();
  EXPECT_EQ(launch.attempt().job_uid(), created.uid());
  EXPECT_EQ(launch.attempt().epoch(), 1);
  EXPECT_EQ(launch.job_name(), created.name());
  EXPECT_EQ(launch.slots(), 1);
  EXPECT_EQ(launch.spec().recipe(), "ssd");
  EXPECT_GT(launch.spec().stages_size(), 0);

  agent.SendRunning(launch.attempt(), 17);
  const v1::Job running = served.Await("walk", [](const v1::Job& job) {
    return job.state() == v1::JOB_STATE_RUNNING && job.progress().step() == 17;
  });
  EXPECT_EQ(running.progress().stage(), "finetune");
  EXPECT_DOUBLE_EQ(running.progress().loss(), 2.5);
  EXPECT_EQ(running.worker(), "w1");

  agent.SendEnded(launch.attempt(), "OK");
  agent.Await(v1::ChannelResponse::kAttemptAck);
  const v1::Job done = served.AwaitState("walk", v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(done.report().verdict(), "balanced");
  EXPECT_DOUBLE_EQ(done.report().components().at("hybrid").loss(), 2.25);
  EXPECT_EQ(done.artifact(), "/work/jobs/x/artifacts/model");
  EXPECT_TRUE(done.has_start_time());
  EXPECT_TRUE(done.has_end_time());
}

// The rank's progress thread may speak of a stage after the message that it is over.
TEST(Jobs, ProgressOfAFormerStageIsNotShown) {
  ServedCoordinator served;
  FakeAgent agent(served.channel());
  served.MustCreate("late");
  const v1::Launch launch = agent.AwaitLaunch();
  agent.SendRunning(launch.attempt(), 17);
  served.Await("late", [](const v1::Job& job) { return job.progress().stage() == "finetune"; });
  v1::ChannelRequest former;
  *former.mutable_attempt()->mutable_attempt() = launch.attempt();
  former.mutable_attempt()->set_phase(v1::ATTEMPT_PHASE_RUNNING);
  former.mutable_attempt()->mutable_progress()->set_stage("attention_transfer");
  former.mutable_attempt()->mutable_progress()->set_stage_index(1);
  agent.Send(former);
  agent.Heartbeat({launch.attempt()});
  agent.Await(v1::ChannelResponse::kHeartbeatAck);  // what came before it has been stepped
  v1::Job job;
  ASSERT_TRUE(served.Get("late", &job).ok());
  EXPECT_EQ(job.progress().stage(), "finetune");
}

TEST(Jobs, AreFoundByNameIdAndUid) {
  ServedCoordinator served;
  const v1::Job created = served.MustCreate("find-me");
  for (const std::string& name : {created.name(), std::string("find-me"), created.uid()}) {
    v1::Job job;
    ASSERT_TRUE(served.Get(name, &job).ok()) << name;
    EXPECT_EQ(job.uid(), created.uid());
  }
}

TEST(Jobs, TheSameNameAgainGetsASuffix) {
  ServedCoordinator served;
  EXPECT_EQ(served.MustCreate("twin").name(), "projects/default/jobs/twin");
  const v1::Job second = served.MustCreate("twin");
  EXPECT_EQ(second.name(), "projects/default/jobs/twin-2");
  EXPECT_EQ(second.spec().name(), "twin-2");
}

TEST(Jobs, ARequestIdIsAnsweredOnce) {
  ServedCoordinator served;
  FakeAgent agent(served.channel());
  served.AwaitWorkers([](const auto& all) { return all.workers_size() == 1; });
  const v1::Job first = served.MustCreate("once", 0, "r1");
  const int inspections = agent.inspections();
  EXPECT_EQ(served.MustCreate("once", 0, "r1").uid(), first.uid());
  EXPECT_EQ(agent.inspections(), inspections) << "a replay asks no agent: the paths may be gone";

  v1::CreateJobRequest other;
  *other.mutable_spec() = GoodSpec("once");
  other.mutable_spec()->set_seed(99);
  other.set_request_id("r1");
  v1::Job job;
  const grpc::Status refused = served.Create(other, &job);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_NE(refused.error_message().find("request_id r1"), std::string::npos);
  v1::ListJobsResponse all;
  ASSERT_TRUE(served.List({}, &all).ok());
  EXPECT_EQ(all.jobs_size(), 1);
}

TEST(Jobs, ValidateOnlyCreatesNothing) {
  ServedCoordinator served;
  v1::CreateJobRequest request;
  *request.mutable_spec() = GoodSpec("dry");
  request.set_validate_only(true);
  v1::Job job;
  ASSERT_TRUE(served.Create(request, &job).ok());
  EXPECT_GT(job.spec().stages_size(), 0);
  EXPECT_NE(job.message().find("no worker was ready"), std::string::npos) << job.message();
  v1::ListJobsResponse all;
  ASSERT_TRUE(served.List({}, &all).ok());
  EXPECT_EQ(all.jobs_size(), 0);
}

TEST(Jobs, ListsGoPageByPageWhileJobsCome) {
  ServedCoordinator served;
  std::set<std::string> made;
  for (int i = 0; i < 5; ++i) made.insert(served.MustCreate("page").uid());
  v1::ListJobsRequest request;
  request.set_page_size(2);
  std::set<std::string> seen;
  int pages = 0;
  do {
    v1::ListJobsResponse page;
    ASSERT_TRUE(served.List(request, &page).ok());
    for (const v1::Job& job : page.jobs()) EXPECT_TRUE(seen.insert(job.uid()).second);
    request.set_page_token(page.next_page_token());
    served.MustCreate("late");  // newer than the page: neither shown nor in the way
    ++pages;
  } while (!request.page_token().empty());
  EXPECT_EQ(seen, made);
  EXPECT_EQ(pages, 3);
}

TEST(Jobs, ListsFilterByStateAndProject) {
  ServedCoordinator served;
  served.MustCreate("a");
  v1::Job job;
  ASSERT_TRUE(served.Cancel("a", &job).ok());
  served.MustCreate("b");
  v1::ListJobsRequest request;
  request.set_state("CANCELLED");
  v1::ListJobsResponse page;
  ASSERT_TRUE(served.List(request, &page).ok());
  ASSERT_EQ(page.jobs_size(), 1);
  EXPECT_EQ(page.jobs(0).name(), "projects/default/jobs/a");
  request.set_project("elsewhere");
  ASSERT_TRUE(served.List(request, &page).ok());
  EXPECT_EQ(page.jobs_size(), 0);
}

TEST(Jobs, CancelIsIdempotentAndStopsARunningAttempt) {
  ServedCoordinator served;
  FakeAgent agent(served.channel());
  served.MustCreate("stop-me");
  const v1::Launch launch = agent.AwaitLaunch();
  agent.SendRunning(launch.attempt(), 1);
  const v1::Job running = served.AwaitState("stop-me", v1::JOB_STATE_RUNNING);

  v1::Job job;
  EXPECT_EQ(served.Cancel("stop-me", &job, "1").error_code(), grpc::StatusCode::ABORTED);
  ASSERT_TRUE(served.Cancel("stop-me", &job, running.etag()).ok());
  EXPECT_EQ(job.state(), v1::JOB_STATE_CANCELLING);
  ASSERT_TRUE(served.Cancel("stop-me", &job).ok());
  EXPECT_EQ(agent.Await(v1::ChannelResponse::kStop).stop().attempt().job_uid(), job.uid());
  agent.SendEnded(launch.attempt(), "STOPPED");
  EXPECT_EQ(served.AwaitState("stop-me", v1::JOB_STATE_CANCELLED).state(), v1::JOB_STATE_CANCELLED);
  ASSERT_TRUE(served.Cancel("stop-me", &job).ok());
}

TEST(Jobs, AFinishedJobCannotBeCancelled) {
  ServedCoordinator served;
  FakeAgent agent(served.channel());
  served.MustCreate("done");
  RunToSuccess(agent, agent.AwaitLaunch());
  v1::Job job;
  EXPECT_EQ(served.Cancel("done", &job).error_code(), grpc::StatusCode::FAILED_PRECONDITION);
}

TEST(Jobs, EventsTellTheStory) {
  ServedCoordinator served;
  FakeAgent agent(served.channel());
  served.MustCreate("story");
  RunToSuccess(agent, agent.AwaitLaunch());
  grpc::ClientContext context;
  SetDeadline(&context);
  v1::ListEventsRequest request;
  request.set_name("story");
  v1::ListEventsResponse response;
  ASSERT_TRUE(served.jobs().ListEvents(&context, request, &response).ok());
  std::vector<std::string> kinds;
  int64_t revision = 0;
  for (const v1::JobEvent& event : response.events()) {
    kinds.push_back(event.kind());
    EXPECT_GT(event.revision(), revision);
    revision = event.revision();
  }
  ASSERT_GE(kinds.size(), 4u);
  EXPECT_EQ(kinds.front(), "created");
  EXPECT_EQ(kinds[1], "admitted");
  EXPECT_EQ(kinds.back(), "succeeded");
}

TEST(Jobs, ARestartKeepsJobsAndTheAttemptThatRuns) {
  ServedCoordinator served;
  auto agent = std::make_unique<FakeAgent>(served.channel());
  const v1::Job kept = served.MustCreate("kept", 0, "request-of-kept");
  const v1::Launch launch = agent->AwaitLaunch();
  agent->SendRunning(launch.attempt(), 3);
  served.AwaitState("kept", v1::JOB_STATE_RUNNING);
  served.Restart();
  EXPECT_FALSE(agent->AwaitEnd().ok());

  v1::Job job;
  ASSERT_TRUE(served.Get("kept", &job).ok());
  EXPECT_EQ(job.state(), v1::JOB_STATE_RUNNING);
  EXPECT_EQ(served.MustCreate("kept", 0, "request-of-kept").uid(), kept.uid());

  FakeAgentOptions same;
  same.live = {launch.attempt()};
  FakeAgent back(served.channel(), same);
  EXPECT_EQ(back.Await(v1::ChannelResponse::kRegistered).registered().coordinator_generation(),
            "2");
  RunToSuccess(back, launch);
  const v1::Job done = served.AwaitState("kept", v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(done.epoch(), 1) << "a coordinator's restart costs no attempt";
}

TEST(Jobs, WhatAnAgentFindsWrongIsRefusedAtSubmit) {
  ServedCoordinator served;
  FakeAgentOptions options;
  options.violations.resize(2);
  options.violations[0].set_field("model.path");
  options.violations[0].set_message("model.path is /models/base; there is no such folder");
  options.violations[1].set_field("data.train[0]");
  options.violations[1].set_message("data.train[0] is /text/train.txt; there is no such file");
  FakeAgent agent(served.channel(), options);
  served.AwaitWorkers([](const auto& all) { return all.workers_size() == 1; });
  v1::CreateJobRequest request;
  *request.mutable_spec() = GoodSpec("wrong-paths");
  v1::Job job;
  const grpc::Status status = served.Create(request, &job);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(status.error_message(),
            "model.path is /models/base; there is no such folder\n"
            "data.train[0] is /text/train.txt; there is no such file");
  EXPECT_NE(status.error_details().find("google.rpc.BadRequest"), std::string::npos);
}

TEST(Jobs, AnAgentThatDoesNotAnswerIsAWarningOnly) {
  ServedCoordinator served;
  FakeAgentOptions options;
  options.answers_inspect = false;
  FakeAgent agent(served.channel(), options);
  served.AwaitWorkers([](const auto& all) { return all.workers_size() == 1; });
  v1::CreateJobRequest request;
  *request.mutable_spec() = GoodSpec("unseen");
  request.set_validate_only(true);
  v1::Job job;
  ASSERT_TRUE(served.Create(request, &job).ok());
  EXPECT_NE(job.message().find("checked at launch"), std::string::npos) << job.message();
}

}  // namespace
}  // namespace tandem::service
