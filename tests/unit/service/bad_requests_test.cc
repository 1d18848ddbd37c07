// Bad calls: each gives one clear error and leaves nothing behind.
#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "tests/unit/service/fake_agent.h"

namespace tandem::service {
namespace {

using grpc::StatusCode;

struct BadCall {
  const char* what;
  std::function<grpc::Status(ServedCoordinator&)> call;
  StatusCode code;
  const char* words;  // a part of the message
};

grpc::Status CreateWith(ServedCoordinator& served,
                        const std::function<void(v1::CreateJobRequest*)>& change) {
  v1::CreateJobRequest request;
  *request.mutable_spec() = GoodSpec("bad");
  change(&request);
  v1::Job job;
  return served.Create(request, &job);
}

grpc::Status ListWith(ServedCoordinator& served,
                      const std::function<void(v1::ListJobsRequest*)>& change) {
  v1::ListJobsRequest request;
  change(&request);
  v1::ListJobsResponse response;
  return served.List(request, &response);
}

grpc::Status GetNamed(ServedCoordinator& served, const std::string& name) {
  v1::Job job;
  return served.Get(name, &job);
}

grpc::Status CancelWith(ServedCoordinator& served, const std::string& name,
                        const std::string& etag) {
  v1::Job job;
  return served.Cancel(name, &job, etag);
}

grpc::Status WatchFrom(ServedCoordinator& served, const std::string& name, int64_t revision) {
  grpc::ClientContext context;
  SetDeadline(&context);
  v1::WatchJobsRequest request;
  request.set_name(name);
  request.set_start_revision(revision);
  const auto reader = served.jobs().WatchJobs(&context, request);
  v1::WatchJobsResponse message;
  EXPECT_FALSE(reader->Read(&message));
  return reader->Finish();
}

grpc::Status LogsWith(ServedCoordinator& served,
                      const std::function<void(v1::StreamLogsRequest*)>& change) {
  grpc::ClientContext context;
  SetDeadline(&context);
  v1::StreamLogsRequest request;
  request.set_name("good");
  change(&request);
  const auto reader = served.jobs().StreamLogs(&context, request);
  v1::StreamLogsResponse message;
  EXPECT_FALSE(reader->Read(&message));
  return reader->Finish();
}

grpc::Status ReportWith(ServedCoordinator& served, const std::string& name,
                        const std::string& format) {
  grpc::ClientContext context;
  SetDeadline(&context);
  v1::GetReportRequest request;
  request.set_name(name);
  request.set_format(format);
  v1::GetReportResponse response;
  return served.jobs().GetReport(&context, request, &response);
}

grpc::Status DrainNamed(ServedCoordinator& served, const std::string& name) {
  grpc::ClientContext context;
  SetDeadline(&context);
  v1::DrainWorkerRequest request;
  request.set_name(name);
  v1::Worker worker;
  return served.fleet().DrainWorker(&context, request, &worker);
}

// The status with which a channel ends that begins with these messages.
grpc::Status ChannelWith(ServedCoordinator& served,
                         const std::vector<std::function<void(v1::ChannelRequest*)>>& messages) {
  grpc::ClientContext context;
  SetDeadline(&context);
  const auto stub = v1::WorkerControl::NewStub(served.channel());
  const auto stream = stub->Channel(&context);
  for (const auto& fill : messages) {
    v1::ChannelRequest message;
    fill(&message);
    stream->Write(message);
  }
  v1::ChannelResponse answer;
  while (stream->Read(&answer)) {
  }
  return stream->Finish();
}

void GoodRegister(v1::ChannelRequest* message) {
  message->mutable_register_()->set_worker("bad-agent");
  message->mutable_register_()->set_incarnation("i");
  message->mutable_register_()->set_slots(1);
}

// A job "good" exists; it needs two slots, and no worker of these calls has more than one.
const std::vector<BadCall>& BadCalls() {
  static const std::vector<BadCall> calls = {
      {"create without a spec",
       [](auto& s) { return CreateWith(s, [](auto* r) { r->clear_spec(); }); },
       StatusCode::INVALID_ARGUMENT, "spec is missing"},
      {"create with a bad spec",
       [](auto& s) { return CreateWith(s, [](auto* r) { r->mutable_spec()->clear_model(); }); },
       StatusCode::INVALID_ARGUMENT, "model.path"},
      {"create with an unknown recipe",
       [](auto& s) {
         return CreateWith(s, [](auto* r) { r->mutable_spec()->set_recipe("magic"); });
       },
       StatusCode::INVALID_ARGUMENT, "recipe"},
      {"create with a name of slashes",
       [](auto& s) { return CreateWith(s, [](auto* r) { r->mutable_spec()->set_name("a/b"); }); },
       StatusCode::INVALID_ARGUMENT, "name"},
      {"create with a long request id",
       [](auto& s) {
         return CreateWith(s, [](auto* r) { r->set_request_id(std::string(129, 'r')); });
       },
       StatusCode::INVALID_ARGUMENT, "request_id has 129 bytes; at most 128"},
      {"create with a huge spec",
       [](auto& s) {
         return CreateWith(s, [](auto* r) {
           r->mutable_spec()->mutable_data()->add_train(std::string(2 << 20, 'x'));
         });
       },
       StatusCode::INVALID_ARGUMENT, "at most 1048576"},
      {"get without a name", [](auto& s) { return GetNamed(s, ""); }, StatusCode::INVALID_ARGUMENT,
       "name is empty"},
      {"get a path", [](auto& s) { return GetNamed(s, "../etc/passwd"); },
       StatusCode::INVALID_ARGUMENT, "must be projects/{project}/jobs/{job}"},
      {"get what is not there", [](auto& s) { return GetNamed(s, "nothing"); },
       StatusCode::NOT_FOUND, "there is no job 'nothing'"},
      {"get from another project", [](auto& s) { return GetNamed(s, "projects/other/jobs/good"); },
       StatusCode::NOT_FOUND, "there is no job 'projects/other/jobs/good'"},
      {"list with a negative size",
       [](auto& s) { return ListWith(s, [](auto* r) { r->set_page_size(-1); }); },
       StatusCode::INVALID_ARGUMENT, "page_size is -1; must be in [1, 1000]"},
      {"list with a huge size",
       [](auto& s) { return ListWith(s, [](auto* r) { r->set_page_size(1001); }); },
       StatusCode::INVALID_ARGUMENT, "page_size is 1001"},
      {"list with a made-up token",
       [](auto& s) { return ListWith(s, [](auto* r) { r->set_page_token("42"); }); },
       StatusCode::INVALID_ARGUMENT, "page_token is not one that this list returned"},
      {"list of an unknown state",
       [](auto& s) { return ListWith(s, [](auto* r) { r->set_state("SLEEPING"); }); },
       StatusCode::INVALID_ARGUMENT, "state is 'SLEEPING'; must be one of PENDING, ADMITTED"},
      {"list of a bad project",
       [](auto& s) { return ListWith(s, [](auto* r) { r->set_project("a b"); }); },
       StatusCode::INVALID_ARGUMENT, "project is 'a b'"},
      {"cancel what is not there", [](auto& s) { return CancelWith(s, "nothing", ""); },
       StatusCode::NOT_FOUND, "there is no job"},
      {"cancel with a bad etag", [](auto& s) { return CancelWith(s, "good", "yes"); },
       StatusCode::INVALID_ARGUMENT, "etag is 'yes'"},
      {"cancel with an old etag", [](auto& s) { return CancelWith(s, "good", "999"); },
       StatusCode::ABORTED, ""},
      {"watch from a negative revision", [](auto& s) { return WatchFrom(s, "", -5); },
       StatusCode::INVALID_ARGUMENT, "start_revision is -5"},
      {"watch from the future", [](auto& s) { return WatchFrom(s, "", 1'000'000); },
       StatusCode::OUT_OF_RANGE, "start_revision is 1000000; the newest is"},
      {"watch what is not there", [](auto& s) { return WatchFrom(s, "nothing", 0); },
       StatusCode::NOT_FOUND, "there is no job"},
      {"logs of a negative epoch",
       [](auto& s) { return LogsWith(s, [](auto* r) { r->set_epoch(-1); }); },
       StatusCode::INVALID_ARGUMENT, "epoch is -1"},
      {"logs of a later epoch",
       [](auto& s) { return LogsWith(s, [](auto* r) { r->set_epoch(3); }); }, StatusCode::NOT_FOUND,
       "there is no attempt 3"},
      {"logs with a negative tail",
       [](auto& s) { return LogsWith(s, [](auto* r) { r->set_tail_bytes(-1); }); },
       StatusCode::INVALID_ARGUMENT, "tail_bytes is -1"},
      {"logs of a path",
       [](auto& s) { return LogsWith(s, [](auto* r) { r->set_file("../plan.err"); }); },
       StatusCode::INVALID_ARGUMENT, "file is '../plan.err'"},
      {"report in another format", [](auto& s) { return ReportWith(s, "good", "pdf"); },
       StatusCode::INVALID_ARGUMENT, "format is 'pdf'; must be html or json"},
      {"report before there is one", [](auto& s) { return ReportWith(s, "good", "html"); },
       StatusCode::FAILED_PRECONDITION, "has no report"},
      {"drain what is not there", [](auto& s) { return DrainNamed(s, "workers/nobody"); },
       StatusCode::NOT_FOUND, "nobody"},
      {"drain a bad name", [](auto& s) { return DrainNamed(s, "workers/a/b"); },
       StatusCode::INVALID_ARGUMENT, "must be workers/{worker}"},
      {"a channel that does not register",
       [](auto& s) { return ChannelWith(s, {[](auto* m) { m->mutable_heartbeat(); }}); },
       StatusCode::FAILED_PRECONDITION, "first message of a channel must be `register`"},
      {"a channel with an empty message",
       [](auto& s) {
         return ChannelWith(s, {GoodRegister, [](auto*) {}});
       },
       StatusCode::INVALID_ARGUMENT, "a channel message is empty"},
      {"a channel that registers twice",
       [](auto& s) {
         return ChannelWith(s, {GoodRegister, GoodRegister});
       },
       StatusCode::FAILED_PRECONDITION, "has registered on this channel already"},
      {"a worker with everything wrong",
       [](auto& s) { return ChannelWith(s, {[](auto* m) { m->mutable_register_(); }}); },
       StatusCode::INVALID_ARGUMENT,
       "worker is ''; must be 1 to 63 letters, digits, '-', '_' or '.'\n"
       "slots is 0; must be in [1, 4096]\n"
       "incarnation is empty"},
  };
  return calls;
}

TEST(BadRequests, EachGivesOneClearErrorAndLeavesNothingBehind) {
  ServedCoordinator served;
  ASSERT_TRUE(CreateWith(served, [](v1::CreateJobRequest* request) {
                request->mutable_spec()->set_name("good");
                request->mutable_spec()->mutable_parallelism()->set_data(2);
              }).ok());
  for (const BadCall& bad : BadCalls()) {
    const grpc::Status status = bad.call(served);
    EXPECT_EQ(status.error_code(), bad.code) << bad.what << ": " << status.error_message();
    EXPECT_NE(status.error_message().find(bad.words), std::string::npos)
        << bad.what << ": " << status.error_message();
  }
  v1::ListJobsResponse all;
  ASSERT_TRUE(served.List({}, &all).ok());
  ASSERT_EQ(all.jobs_size(), 1);
  EXPECT_EQ(all.jobs(0).state(), v1::JOB_STATE_PENDING);
}

TEST(BadRequests, ATokenOfAnotherFilterIsRefused) {
  ServedCoordinator served;
  served.MustCreate("a");
  served.MustCreate("b");
  v1::ListJobsRequest request;
  request.set_page_size(1);
  v1::ListJobsResponse page;
  ASSERT_TRUE(served.List(request, &page).ok());
  ASSERT_FALSE(page.next_page_token().empty());
  request.set_page_token(page.next_page_token());
  request.set_state("PENDING");
  EXPECT_EQ(served.List(request, &page).error_code(), StatusCode::INVALID_ARGUMENT);
}

TEST(BadRequests, AllViolationsOfASpecComeAtOnce) {
  ServedCoordinator served;
  const grpc::Status status = CreateWith(served, [](v1::CreateJobRequest* request) {
    request->mutable_spec()->clear_model();
    request->mutable_spec()->mutable_finetune()->set_steps(0);
    request->mutable_spec()->mutable_attention()->mutable_window()->set_size(-3);
  });
  EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
  for (const char* part : {"model.path", "finetune.steps", "attention.window.size"}) {
    EXPECT_NE(status.error_message().find(part), std::string::npos) << status.error_message();
  }
}

TEST(BadRequests, AFloodOfViolationsStillFitsIntoATrailer) {
  ServedCoordinator served;
  FakeAgentOptions options;
  options.violations.resize(500);
  for (v1::Violation& violation : options.violations) {
    violation.set_field("data.train[0]");
    violation.set_message("data.train[0] is /text/gr\xc3\xbc\xc3\x9f.txt; there is no such file");
  }
  FakeAgent agent(served.channel(), options);
  served.AwaitWorkers([](const auto& all) { return all.workers_size() == 1; });
  const grpc::Status status = CreateWith(served, [](auto*) {});
  EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT) << status.error_message();
  EXPECT_NE(status.error_message().find("more"), std::string::npos) << status.error_message();
  EXPECT_FALSE(status.error_details().empty());
}

}  // namespace
}  // namespace tandem::service
