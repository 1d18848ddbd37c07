// What other programs see: health, metrics, the address that is taken, the database on disk.
#include <arpa/inet.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>

#include "base/files.h"
#include "coordinator/loop/scrape_endpoint.h"
#include "coordinator/store/sqlite_store.h"
#include "tests/unit/service/fake_agent.h"

namespace tandem::service {
namespace {

// grpc.health.v1.Health/Check by hand: Debian ships no client for it. 1 = SERVING, 2 = NOT_SERVING,
// -1 = an error.
int HealthOf(ServedCoordinator& served, const std::string& name) {
  std::string request = "\x0a";
  request.push_back(static_cast<char>(name.size()));
  request += name;
  const grpc::Slice slice(name.empty() ? "" : request);
  const grpc::ByteBuffer bytes(&slice, 1);
  grpc::GenericStub stub(served.channel());
  grpc::ClientContext context;
  SetDeadline(&context);
  grpc::CompletionQueue queue;
  const auto call = stub.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check", bytes, &queue);
  call->StartCall();
  grpc::ByteBuffer answer;
  grpc::Status status;
  call->Finish(&answer, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  grpc::Slice content;
  if (!status.ok() || !answer.DumpToSingleSlice(&content).ok() || content.size() != 2) return -1;
  return content.begin()[1];
}

std::string HttpGet(const std::string& address, const std::string& path) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
  inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
  std::string answer;
  if (connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0) {
    const std::string request = "GET " + path + " HTTP/1.0\r\n\r\n";
    EXPECT_EQ(write(fd, request.data(), request.size()), static_cast<ssize_t>(request.size()));
    char buffer[4096];
    ssize_t got = 0;
    while ((got = read(fd, buffer, sizeof buffer)) > 0)
      answer.append(buffer, static_cast<size_t>(got));
  }
  close(fd);
  return answer;
}

bool Contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(Health, NamesWhatIsServed) {
  ServedCoordinator served;
  EXPECT_EQ(HealthOf(served, ""), 1);
  EXPECT_EQ(HealthOf(served, "coordinator"), 1);
  EXPECT_EQ(HealthOf(served, "jobs"), 1);
  EXPECT_EQ(HealthOf(served, "unknown"), -1);
}

TEST(Health, TurnsRedWhenTheStoreFailsAndReadsGoOn) {
  ServedCoordinator served;
  served.MustCreate("before");
  served.store().FailNextCommit(/*after_writing=*/false);
  v1::CreateJobRequest request;
  *request.mutable_spec() = GoodSpec("lost");
  v1::Job job;
  EXPECT_EQ(served.Create(request, &job).error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(served.Create(request, &job).error_code(), grpc::StatusCode::UNAVAILABLE);
  const int64_t deadline_ms = Clock::System().MonotonicMs() + kPatience.count() * 1000;
  while (HealthOf(served, "coordinator") != 2) {
    ASSERT_LT(Clock::System().MonotonicMs(), deadline_ms);
  }
  EXPECT_EQ(HealthOf(served, ""), 1) << "alive: a restart by the prober would not help";
  EXPECT_TRUE(served.Get("before", &job).ok());
  EXPECT_EQ(served.Get("lost", &job).error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST(Scrape, ShowsTheFleetTheJobsAndTheCalls) {
  core::Limits limits;
  limits.backoff_first_ms = 1;
  ServedCoordinator served(limits);
  const auto scrape = ScrapeEndpoint::Listen("127.0.0.1:0", served.metrics(),
                                             [&served] { served.service().ShowGauges(); });
  ASSERT_TRUE(scrape.ok()) << scrape.status().ToString();
  FakeAgent agent(served.channel());
  served.MustCreate("measured");
  const v1::Launch first = agent.AwaitLaunch();
  agent.SendEnded(first.attempt(), "RANK_EXIT");
  agent.SendEnded(agent.AwaitLaunch().attempt(), "STOPPED");
  const v1::Launch last = agent.AwaitLaunch();
  RunToSuccess(agent, last);
  agent.SendRunning(first.attempt(), 1);
  agent.Await(v1::ChannelResponse::kFenceBelow);
  served.AwaitState("measured", v1::JOB_STATE_SUCCEEDED);
  v1::Job job;
  served.Get("nothing", &job);
  const std::string page = HttpGet((*scrape)->address(), "/metrics");
  for (const char* line :
       {"tandem_jobs{state=\"SUCCEEDED\"} 1", "tandem_jobs{state=\"PENDING\"} 0",
        "tandem_workers{state=\"READY\"} 1", "tandem_worker_heartbeat_age_seconds{worker=\"w1\"} 0",
        "tandem_job_transitions_total{from=\"NONE\",reason=\"\",to=\"PENDING\"} 1",
        "tandem_job_submissions_total{result=\"accepted\"} 1",
        "tandem_grpc_server_handled_total{code=\"OK\",method=\"JobService/CreateJob\"} 1",
        "tandem_grpc_server_handled_total{code=\"NOT_FOUND\",method=\"JobService/GetJob\"} 1",
        "tandem_grpc_server_handling_seconds_count{method=\"JobService/CreateJob\"} 1",
        "tandem_verdicts_total{recipe=\"ssd\",verdict=\"balanced\"} 1",
        "tandem_attempt_failures_total{cause=\"RANK_EXIT\"} 1",
        "tandem_stale_epoch_rejections_total 1", "tandem_store_commit_seconds_count",
        "tandem_event_revision", "tandem_watchers ", "tandem_pending_jobs{reason=\"NO_WORKER\"} 0",
        "tandem_build_info{component=\"coordinator\",version=\"test\"} 1"}) {
    EXPECT_TRUE(Contains(page, line)) << line << " is not in\n" << page;
  }
  EXPECT_FALSE(Contains(page, "failures_total{cause=\"STOPPED\"}")) << "it was asked for";
  EXPECT_FALSE(Contains(page, job.uid().empty() ? "measured" : job.uid())) << "no job ids here";
  for (const char* label : {"{job=", ",job=", "{instance=", ",instance="}) {
    EXPECT_FALSE(Contains(page, label)) << label;
  }
}

TEST(Addresses, ThatAreTakenAreOneClearError) {
  ServedCoordinator served;
  store::MemoryStore store(std::make_shared<store::Rows>());
  Metrics metrics("test");
  Service second(store, metrics, Clock::System(), PageTokens("a key of the tests only"));
  const Status status = second.Start({served.address(), {}});
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_TRUE(Contains(status.message(), "cannot listen on " + served.address()))
      << status.message();
  const auto scrape = ScrapeEndpoint::Listen("127.0.0.1:0", metrics, [] {});
  ASSERT_TRUE(scrape.ok());
  const auto again = ScrapeEndpoint::Listen((*scrape)->address(), metrics, [] {});
  EXPECT_FALSE(again.ok());
}

TEST(Disk, AJobIsThereAgainFromSqlite) {
  const std::string folder =
      (std::filesystem::path(testing::TempDir()) / ("service-" + std::to_string(getpid())))
          .string();
  ASSERT_TRUE(MakeFolders(folder).ok());
  std::string uid;
  for (int start = 0; start < 2; ++start) {
    auto store = store::OpenSqliteStore(JoinPath(folder, "tandem.db"));
    ASSERT_TRUE(store.ok()) << store.status().ToString();
    auto tokens = PageTokens::FromStateFolder(folder);
    ASSERT_TRUE(tokens.ok());
    Metrics metrics("test");
    Service service(**store, metrics, Clock::System(), std::move(*tokens));
    ASSERT_TRUE(service.Start({"127.0.0.1:0", {}}).ok());
    const auto stub = v1::JobService::NewStub(
        grpc::CreateChannel(service.address(), grpc::InsecureChannelCredentials()));
    grpc::ClientContext context;
    SetDeadline(&context);
    v1::Job job;
    if (start == 0) {
      v1::CreateJobRequest request;
      *request.mutable_spec() = GoodSpec("on-disk");
      ASSERT_TRUE(stub->CreateJob(&context, request, &job).ok());
      uid = job.uid();
    } else {
      v1::GetJobRequest request;
      request.set_name("on-disk");
      ASSERT_TRUE(stub->GetJob(&context, request, &job).ok());
      EXPECT_EQ(job.uid(), uid);
      EXPECT_EQ(job.state(), v1::JOB_STATE_PENDING);
      EXPECT_EQ(job.spec().recipe(), "ssd");
    }
  }
  ASSERT_TRUE(RemoveTree(folder).ok());
}

}  // namespace
}  // namespace tandem::service
