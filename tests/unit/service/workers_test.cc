// Workers over real gRPC: registration, heartbeats, drains, lost streams, failures and retries.
#include <gtest/gtest.h>

#include "tests/unit/service/fake_agent.h"

namespace tandem::service {
namespace {

TEST(Workers, RegisterAndAreListed) {
  core::Limits limits;
  limits.lease_ms = 7'000;
  limits.heartbeat_ms = 300;
  ServedCoordinator served(limits);
  FakeAgentOptions options;
  options.slots = 3;
  FakeAgent agent(served.channel(), options);
  const v1::Registered registered = agent.Await(v1::ChannelResponse::kRegistered).registered();
  EXPECT_EQ(registered.lease_ms(), 7'000);
  EXPECT_EQ(registered.heartbeat_ms(), 300);
  const v1::ListWorkersResponse all = served.Workers();
  ASSERT_EQ(all.workers_size(), 1);
  EXPECT_EQ(all.workers(0).name(), "workers/w1");
  EXPECT_EQ(all.workers(0).state(), v1::WORKER_STATE_READY);
  EXPECT_EQ(all.workers(0).slots(), 3);
  EXPECT_TRUE(all.workers(0).has_last_heartbeat());
  agent.Heartbeat({});
  EXPECT_EQ(agent.Await(v1::ChannelResponse::kHeartbeatAck).heartbeat_ack().sequence(), 7);
}

TEST(Workers, ShowWhatTheyRun) {
  ServedCoordinator served;
  FakeAgent agent(served.channel());
  const v1::Job job = served.MustCreate("shown");
  agent.AwaitLaunch();
  const v1::ListWorkersResponse all = served.Workers();
  ASSERT_EQ(all.workers_size(), 1);
  EXPECT_EQ(all.workers(0).slots_in_use(), 1);
  ASSERT_EQ(all.workers(0).jobs_size(), 1);
  EXPECT_EQ(all.workers(0).jobs(0), job.name());
}

TEST(Workers, OneSlotRunsJobsByPriority) {
  ServedCoordinator served;
  served.MustCreate("low", 1);
  const v1::Job high = served.MustCreate("high", 5);
  FakeAgent agent(served.channel());
  const v1::Launch first = agent.AwaitLaunch();
  EXPECT_EQ(first.attempt().job_uid(), high.uid());
  RunToSuccess(agent, first);
  EXPECT_EQ(agent.AwaitLaunch().job_name(), "projects/default/jobs/low");
}

TEST(Workers, ACrashIsRetriedAndAnOldEpochChangesNothing) {
  core::Limits limits;
  limits.backoff_first_ms = 1;
  ServedCoordinator served(limits);
  FakeAgent agent(served.channel());
  served.MustCreate("crash");
  const v1::Launch first = agent.AwaitLaunch();
  agent.SendRunning(first.attempt(), 1);
  agent.SendEnded(first.attempt(), "RANK_EXIT", "rank 0 was killed by signal 9");
  const v1::Launch second = agent.AwaitLaunch();
  EXPECT_EQ(second.attempt().epoch(), 2);
  agent.SendRunning(first.attempt(), 50);  // a zombie of epoch 1
  EXPECT_EQ(agent.Await(v1::ChannelResponse::kFenceBelow).fence_below().epoch(), 2);
  RunToSuccess(agent, second);
  EXPECT_EQ(served.AwaitState("crash", v1::JOB_STATE_SUCCEEDED).epoch(), 2);
}

TEST(Workers, BadDataFailsTheJobWithItsWords) {
  ServedCoordinator served;
  FakeAgent agent(served.channel());
  served.MustCreate("bad-data");
  const v1::Launch launch = agent.AwaitLaunch();
  agent.SendEnded(launch.attempt(), "DATA", "data.train[0] holds no text");
  const v1::Job failed = served.AwaitState("bad-data", v1::JOB_STATE_FAILED);
  EXPECT_EQ(failed.reason(), "DATA");
  EXPECT_NE(failed.message().find("data.train[0] holds no text"), std::string::npos);
}

TEST(Workers, AnEndInAHeartbeatCountsAsWell) {
  ServedCoordinator served;
  FakeAgent agent(served.channel());
  served.MustCreate("beat");
  const v1::Launch launch = agent.AwaitLaunch();
  agent.Heartbeat({launch.attempt()});
  served.AwaitState("beat", v1::JOB_STATE_RUNNING);
  v1::ChannelRequest message;
  v1::AttemptStatus& status = *message.mutable_heartbeat()->add_attempts();
  *status.mutable_attempt() = launch.attempt();
  status.set_phase(v1::ATTEMPT_PHASE_ENDED);
  status.set_cause("BAD_PLAN");
  agent.Send(message);
  EXPECT_EQ(served.AwaitState("beat", v1::JOB_STATE_FAILED).reason(), "BAD_PLAN");
}

TEST(Workers, DrainMovesTheJobAndUndrainTakesNewOnes) {
  ServedCoordinator served;
  FakeAgent agent(served.channel());
  served.MustCreate("moved");
  const v1::Launch launch = agent.AwaitLaunch();
  agent.SendRunning(launch.attempt(), 1);
  served.AwaitState("moved", v1::JOB_STATE_RUNNING);

  v1::Worker worker;
  {
    grpc::ClientContext context;
    SetDeadline(&context);
    v1::DrainWorkerRequest request;
    request.set_name("workers/w1");
    ASSERT_TRUE(served.fleet().DrainWorker(&context, request, &worker).ok());
  }
  EXPECT_EQ(worker.state(), v1::WORKER_STATE_DRAINING);
  EXPECT_EQ(agent.Await(v1::ChannelResponse::kStop).stop().kind(),
            v1::Stop::KIND_CHECKPOINT_AND_STOP);
  agent.SendEnded(launch.attempt(), "STOPPED");
  served.AwaitState("moved", v1::JOB_STATE_PENDING);
  served.AwaitWorkers(
      [](const auto& all) { return all.workers(0).state() == v1::WORKER_STATE_DRAINED; });
  {
    grpc::ClientContext context;
    SetDeadline(&context);
    v1::UndrainWorkerRequest request;
    request.set_name("w1");
    ASSERT_TRUE(served.fleet().UndrainWorker(&context, request, &worker).ok());
  }
  EXPECT_EQ(agent.AwaitLaunch().attempt().epoch(), 2);
}

TEST(Workers, AReconnectKeepsTheAttempt) {
  ServedCoordinator served;
  auto agent = std::make_unique<FakeAgent>(served.channel());
  served.MustCreate("reconnect");
  const v1::Launch launch = agent->AwaitLaunch();
  agent->SendRunning(launch.attempt(), 1);
  served.AwaitState("reconnect", v1::JOB_STATE_RUNNING);
  agent->Disconnect();
  FakeAgentOptions same;
  same.live = {launch.attempt()};
  FakeAgent back(served.channel(), same);
  RunToSuccess(back, launch);
  EXPECT_EQ(served.AwaitState("reconnect", v1::JOB_STATE_SUCCEEDED).epoch(), 1);
}

TEST(Workers, ARestartedAgentGetsANewEpoch) {
  ServedCoordinator served;
  auto agent = std::make_unique<FakeAgent>(served.channel());
  served.MustCreate("again");
  const v1::Launch launch = agent->AwaitLaunch();
  agent->SendRunning(launch.attempt(), 1);
  served.AwaitState("again", v1::JOB_STATE_RUNNING);
  FakeAgentOptions restarted;
  restarted.incarnation = "second";
  FakeAgent fresh(served.channel(), restarted);
  EXPECT_FALSE(agent->AwaitEnd().ok()) << "the old stream is ended";
  EXPECT_EQ(fresh.AwaitLaunch().attempt().epoch(), 2);
}

// Its end was on the agent's disk and not acknowledged when the agent was killed.
TEST(Workers, ARestartedAgentThatHoldsTheEndRunsNothingAgain) {
  ServedCoordinator served;
  auto agent = std::make_unique<FakeAgent>(served.channel());
  served.MustCreate("held");
  const v1::Launch launch = agent->AwaitLaunch();
  agent->SendRunning(launch.attempt(), 1);
  served.AwaitState("held", v1::JOB_STATE_RUNNING);
  FakeAgentOptions restarted;
  restarted.incarnation = "second";
  restarted.ended = {launch.attempt()};
  FakeAgent fresh(served.channel(), restarted);
  fresh.Await(v1::ChannelResponse::kRegistered);
  fresh.SendEnded(launch.attempt(), "OK");
  fresh.Await(v1::ChannelResponse::kAttemptAck);
  EXPECT_EQ(served.AwaitState("held", v1::JOB_STATE_SUCCEEDED).epoch(), 1);
}

// Asks the state thread for a change that it refuses anyway, until that is its answer: ABORTED
// while the store takes writes, else UNAVAILABLE.
void AwaitRefusal(ServedCoordinator& served, const std::string& job, grpc::StatusCode code) {
  const int64_t deadline_ms = Clock::System().MonotonicMs() + kPatience.count() * 1000;
  v1::Job ignored;
  while (served.Cancel(job, &ignored, /*etag=*/"1").error_code() != code) {
    ASSERT_LT(Clock::System().MonotonicMs(), deadline_ms) << "no refusal with code " << code;
  }
}

// The agent forgets a commit once a later heartbeat is answered: the answer must not come before
// the commit is durable.
TEST(Workers, AHeartbeatIsNotAnsweredBeforeWhatWasSaidBeforeItIsDurable) {
  ServedCoordinator served;
  auto agent = std::make_unique<FakeAgent>(served.channel());
  served.MustCreate("full-disk");
  const v1::Launch launch = agent->AwaitLaunch();
  agent->SendRunning(launch.attempt(), 1);
  served.AwaitState("full-disk", v1::JOB_STATE_RUNNING);
  served.store().FailNextCommit(/*after_writing=*/false);
  v1::ChannelRequest commit;
  *commit.mutable_checkpoint()->mutable_attempt() = launch.attempt();
  commit.mutable_checkpoint()->set_stage_index(1);
  commit.mutable_checkpoint()->set_step(5);
  agent->Send(commit);
  agent->Heartbeat({launch.attempt()});
  AwaitRefusal(served, "full-disk", grpc::UNAVAILABLE);
  served.store().Heal();
  AwaitRefusal(served, "full-disk", grpc::ABORTED);
  EXPECT_FALSE(agent->AwaitEnd().ok()) << "the coordinator has loaded its store anew";
  EXPECT_EQ(agent->Waiting(v1::ChannelResponse::kHeartbeatAck), 0);

  FakeAgentOptions same;
  same.live = {launch.attempt()};
  FakeAgent back(served.channel(), same);
  back.Send(commit);
  RunToSuccess(back, launch);
  EXPECT_EQ(served.AwaitState("full-disk", v1::JOB_STATE_SUCCEEDED).epoch(), 1);
}

TEST(Workers, AFormerIncarnationIsRefusedWithTheWayOut) {
  ServedCoordinator served;
  FakeAgent first(served.channel());
  first.Await(v1::ChannelResponse::kRegistered);
  FakeAgentOptions other;
  other.incarnation = "second";
  FakeAgent second(served.channel(), other);
  second.Await(v1::ChannelResponse::kRegistered);
  FakeAgent zombie(served.channel());
  const grpc::Status status = zombie.AwaitEnd();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_NE(status.error_message().find("--name"), std::string::npos);
}

TEST(Workers, ASilentOneIsLostAndItsJobWaits) {
  core::Limits limits;
  limits.lease_ms = 1'000;  // the shortest that the flags allow
  ServedCoordinator served(limits);
  FakeAgent agent(served.channel());
  served.MustCreate("orphan");
  const v1::Launch launch = agent.AwaitLaunch();
  agent.SendRunning(launch.attempt(), 1);
  served.AwaitState("orphan", v1::JOB_STATE_PENDING);
  served.AwaitWorkers(
      [](const auto& all) { return all.workers(0).state() == v1::WORKER_STATE_LOST; });
}

}  // namespace
}  // namespace tandem::service
