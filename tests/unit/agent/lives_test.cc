// The agent's own lives: lost streams, kill -9, drains, hangs, and starts that must be refused.
#include <signal.h>
#include <sys/stat.h>

#include <algorithm>

#include "base/files.h"
#include "tests/unit/agent/world.h"
#include "worker/agent/marked_processes.h"

namespace tandem::agent {
namespace {

TEST(Lives, ALostStreamIsOpenedAgainAndNothingIsForgotten) {
  const std::string work = TemporaryFolder();
  FakeCoordinator coordinator;
  const WorkerProcess worker(work, coordinator.address());
  const v1::Register first = coordinator.AwaitRegistration(1);
  EXPECT_EQ(first.worker(), "w");
  EXPECT_EQ(first.slots(), 4);
  EXPECT_EQ(first.live_size(), 0);
  coordinator.Launch("lives-on", 1, "train");
  coordinator.AwaitTraining("lives-on", 1);
  coordinator.DropStream();
  const v1::Register second = coordinator.AwaitRegistration(2);
  EXPECT_EQ(second.incarnation(), first.incarnation());
  ASSERT_EQ(second.live_size(), 1);
  EXPECT_EQ(second.live(0).job_uid(), "lives-on");
  coordinator.Stop("lives-on", 1, v1::Stop::KIND_KILL);
  EXPECT_EQ(coordinator.AwaitEnd("lives-on", 1).cause(), "STOPPED");
}

TEST(Lives, ASilentCoordinatorIsAskedAgainOnANewStream) {
  const std::string work = TemporaryFolder();
  FakeCoordinator coordinator(/*lease_ms=*/400);
  const WorkerProcess worker(work, coordinator.address());
  coordinator.AwaitRegistration(1);
  coordinator.GoSilent();
  coordinator.AwaitRegistration(2);
}

TEST(Lives, AfterKillMinusNineNothingIsLeftAndNoEndIsLost) {
  const std::string work = TemporaryFolder();
  FakeCoordinator coordinator;
  coordinator.AcknowledgeEnds(false);
  std::string incarnation, runtime;
  {
    WorkerProcess worker(work, coordinator.address());
    incarnation = coordinator.AwaitRegistration(1).incarnation();
    coordinator.Launch("finished", 1, "ok");
    EXPECT_EQ(coordinator.AwaitEnd("finished", 1).cause(), "OK");
    coordinator.Launch("cut", 1, "hang");
    AwaitTrue("the rank lives", [&] { return CountMarked(work) >= 2; });
    worker.Signal(SIGKILL);
    EXPECT_EQ(worker.Wait(), 128 + SIGKILL);
    runtime = *ReadFile(work + "/workers/w/runtime");
    EXPECT_TRUE(PathExists(runtime + "/a2/agent.sock"));
  }
  const size_t said_before = coordinator.Said().size();
  coordinator.AcknowledgeEnds(true);
  const WorkerProcess worker(work, coordinator.address());
  const v1::Register again = coordinator.AwaitRegistration(2);
  EXPECT_EQ(CountMarked(work), 0u) << "a worker must kill what is left before it registers";
  EXPECT_FALSE(PathExists(runtime)) << "its sockets and temporary files";
  EXPECT_NE(again.incarnation(), incarnation);
  EXPECT_EQ(again.live_size(), 0);
  ASSERT_EQ(again.ended_size(), 1) << "or its attempt would be taken for lost";
  EXPECT_EQ(again.ended(0).job_uid(), "finished");
  coordinator.Await("the unacknowledged end comes again", [&](const auto& said) {
    return std::any_of(said.begin() + static_cast<long>(said_before), said.end(),
                       [](const auto& message) {
                         return message.attempt().attempt().job_uid() == "finished" &&
                                message.attempt().cause() == "OK";
                       });
  });
  AwaitTrue("the outbox is empty", [&] { return ListFolder(work + "/workers/w/outbox")->empty(); });
}

TEST(Lives, SigtermDrains) {
  const std::string work = TemporaryFolder();
  FakeCoordinator coordinator;
  WorkerProcess worker(work, coordinator.address());
  coordinator.AwaitRegistration(1);
  coordinator.Launch("drained", 1, "train", 2);
  coordinator.AwaitTraining("drained", 1);
  worker.Signal(SIGTERM);
  EXPECT_EQ(worker.Wait(), 0);
  const v1::AttemptStatus end = coordinator.AwaitEnd("drained", 1);
  EXPECT_EQ(end.cause(), "STOPPED");
  EXPECT_TRUE(end.resumable());
  coordinator.Await("the announcement", [](const auto& said) {
    return std::any_of(said.begin(), said.end(),
                       [](const auto& message) { return message.has_drain(); });
  });
  EXPECT_TRUE(ListFolder(work + "/workers/w/outbox")->empty());
  EXPECT_EQ(CountMarked(work), 0u);
}

TEST(Lives, AnIdleWorkerSaysThatItLeaves) {
  FakeCoordinator coordinator;
  WorkerProcess worker(TemporaryFolder(), coordinator.address());
  coordinator.Await("a heartbeat, so that it is registered", [](const auto& said) {
    return std::any_of(said.begin(), said.end(),
                       [](const auto& message) { return message.has_heartbeat(); });
  });
  worker.Signal(SIGTERM);
  EXPECT_EQ(worker.Wait(), 0);
  coordinator.Await("the announcement", [](const auto& said) {
    return std::any_of(said.begin(), said.end(),
                       [](const auto& message) { return message.has_drain(); });
  });
}

// What the ranks of an attempt see of the GPUs; every rank of it the same.
std::string VisibleTo(const std::string& work, const std::string& uid) {
  std::string visible = "no rank";
  for (const pid_t pid : FindMarked(AttemptMark(work + "/workers/w", uid, 1))) {
    const auto environment = ReadFile("/proc/" + std::to_string(pid) + "/environ");
    const std::string entry = std::string("\0CUDA_VISIBLE_DEVICES=", 22);
    const size_t found = environment.ok() ? environment->find(entry) : std::string::npos;
    if (found == std::string::npos) continue;
    visible = environment->c_str() + found + entry.size();
  }
  return visible;
}

v1::JobSpec OnGpus(int64_t ranks) {
  v1::JobSpec spec = SmallSpec(ranks);
  spec.mutable_parallelism()->set_device("cuda");
  return spec;
}

TEST(Lives, EachSlotHasAGpuOfItsOwnUntilItsAttemptIsGone) {
  const std::string work = TemporaryFolder();
  FakeCoordinator coordinator;
  const WorkerProcess worker(work, coordinator.address(), {"--gpus", "5,3,4"});
  const v1::Register registration = coordinator.AwaitRegistration(1);
  EXPECT_EQ(registration.device(), "cuda");
  EXPECT_EQ(registration.gpus(), 3);
  coordinator.Launch("one", 1, "train", OnGpus(1));
  coordinator.AwaitTraining("one", 1);
  coordinator.Launch("gang", 1, "train", OnGpus(2));
  coordinator.AwaitTraining("gang", 1);
  coordinator.Launch("on-the-cpu", 1, "train");
  coordinator.AwaitTraining("on-the-cpu", 1);
  EXPECT_EQ(VisibleTo(work, "one"), "5");
  EXPECT_EQ(VisibleTo(work, "gang"), "3,4");
  EXPECT_EQ(VisibleTo(work, "on-the-cpu"), "") << "and no others'";
  coordinator.Launch("too-many", 1, "train", OnGpus(1));
  const v1::AttemptStatus refused = coordinator.AwaitEnd("too-many", 1);
  EXPECT_EQ(refused.cause(), "LAUNCH_FAILED");
  EXPECT_NE(refused.detail().find("0 of this worker's 3 are free"), std::string::npos)
      << refused.detail();
  coordinator.Stop("one", 1, v1::Stop::KIND_KILL);
  coordinator.AwaitEnd("one", 1);
  coordinator.Launch("next", 1, "train", OnGpus(1));
  coordinator.AwaitTraining("next", 1);
  EXPECT_EQ(VisibleTo(work, "next"), "5") << "given back before the end was told";
}

TEST(Lives, GpusAreThoseOfNvidiaSmiUnlessToldOtherwise) {
  const std::string tools = TemporaryFolder();
  const std::string path = getenv("PATH");
  ASSERT_TRUE(WriteFileDurably(tools + "/nvidia-smi", "#!/bin/sh\necho GPU-1\necho GPU-2\n").ok());
  ASSERT_EQ(chmod((tools + "/nvidia-smi").c_str(), 0755), 0);
  setenv("PATH", (tools + ":" + path).c_str(), 1);
  const auto registered = [](const std::string& gpus) {
    FakeCoordinator coordinator;
    const WorkerProcess worker(TemporaryFolder(), coordinator.address(), {"--gpus", gpus});
    const v1::Register registration = coordinator.AwaitRegistration(1);
    return registration.device() + " " + std::to_string(registration.gpus());
  };
  EXPECT_EQ(registered("auto"), "cuda 2");
  EXPECT_EQ(registered("none"), "cpu 0");
  setenv("PATH", path.c_str(), 1);
}

TEST(Lives, RanksWithoutProgressAreKilled) {
  const std::string work = TemporaryFolder();
  FakeCoordinator coordinator;
  const WorkerProcess worker(work, coordinator.address(), {"--hang-seconds", "1"});
  coordinator.AwaitRegistration(1);
  coordinator.Launch("stuck", 1, "hang");
  const v1::AttemptStatus end = coordinator.AwaitEnd("stuck", 1);
  EXPECT_EQ(end.cause(), "HANG");
  EXPECT_NE(end.detail().find("no progress for 1 s"), std::string::npos) << end.detail();
  EXPECT_EQ(CountMarked(work), 0u);
}

TEST(Lives, LogsOfALongAttemptDoNotFillTheDisk) {
  const std::string work = TemporaryFolder();
  FakeCoordinator coordinator;
  const WorkerProcess worker(work, coordinator.address(), {"--log-mib", "1"});
  coordinator.AwaitRegistration(1);
  coordinator.Launch("long", 1, "chatty");
  coordinator.AwaitTraining("long", 1);
  const std::string log = work + "/jobs/long/attempts/1/rank-0.err";
  struct stat info {};
  AwaitTrue("the log's beginning is given back",
            [&] { return stat(log.c_str(), &info) == 0 && info.st_blocks * 512 <= 5 << 18; });
  EXPECT_EQ(info.st_size, 4 << 20) << "what follows it keeps its offset";
}

TEST(Lives, ACheckpointThatTakesTooLongIsNotWaitedFor) {
  const std::string work = TemporaryFolder();
  FakeCoordinator coordinator;
  WorkerProcess worker(work, coordinator.address(), {"--stop-seconds", "1"});
  coordinator.AwaitRegistration(1);
  coordinator.Launch("deaf", 1, "hang");
  AwaitTrue("the rank lives", [&] { return CountMarked(work) >= 2; });
  worker.Signal(SIGTERM);
  EXPECT_EQ(worker.Wait(), 0);
  const v1::AttemptStatus end = coordinator.AwaitEnd("deaf", 1);
  EXPECT_EQ(end.cause(), "STOPPED");
}

TEST(Lives, WithoutACoordinatorItStillEndsWhenTold) {
  const std::string work = TemporaryFolder();
  WorkerProcess worker(work, "127.0.0.1:1");
  AwaitTrue("it says what is missing",
            [&] { return worker.Log().find("coordinator_unreachable") != std::string::npos; });
  worker.Signal(SIGTERM);
  EXPECT_EQ(worker.Wait(), 0);
}

TEST(Lives, TheRuntimeFolderOfAnAgentThatNeverCameBackIsRemovedByTheNext) {
  std::string runtime;
  {
    const std::string work = TemporaryFolder();
    const WorkerProcess worker(work, "127.0.0.1:1");
    AwaitTrue("it serves", [&] { return PathExists(work + "/workers/w/endpoints.json"); });
    runtime = *ReadFile(work + "/workers/w/runtime");
    EXPECT_TRUE(PathExists(runtime));
    const std::string other_work = TemporaryFolder();
    const WorkerProcess other(other_work, "127.0.0.1:1");
    AwaitTrue("the other serves",
              [&] { return PathExists(other_work + "/workers/w/endpoints.json"); });
    EXPECT_TRUE(PathExists(runtime)) << "a living agent's folder is left alone";
  }  // both are killed
  const std::string work = TemporaryFolder();
  const WorkerProcess third(work, "127.0.0.1:1");
  AwaitTrue("the third serves", [&] { return PathExists(work + "/workers/w/endpoints.json"); });
  EXPECT_FALSE(PathExists(runtime));
}

TEST(Lives, ASecondAgentOfTheNameIsRefused) {
  const std::string work = TemporaryFolder();
  const WorkerProcess worker(work, "127.0.0.1:1");
  AwaitTrue("it serves", [&] { return PathExists(work + "/workers/w/endpoints.json"); });
  WorkerProcess second(work, "127.0.0.1:1");
  EXPECT_EQ(second.Wait(), 1);
  EXPECT_NE(second.Log().find("another tandem-worker runs in"), std::string::npos) << second.Log();
}

TEST(Lives, AnUnusablePythonIsSaidAtTheStart) {
  const std::string work = TemporaryFolder();
  WorkerProcess worker(work, "127.0.0.1:1", {"--python", "/bin/false"});
  EXPECT_EQ(worker.Wait(), 2);
  EXPECT_NE(worker.Log().find("Python /bin/false cannot prepare data"), std::string::npos)
      << worker.Log();
}

}  // namespace
}  // namespace tandem::agent
