// Logs and reports, relayed from the agent part by part.
#include <gtest/gtest.h>

#include "tests/unit/service/fake_agent.h"

namespace tandem::service {
namespace {

class Logs : public testing::Test {
 protected:
  // A job that runs, on an agent with these files.
  v1::Launch Launch(FakeAgentOptions options) {
    agent_ = std::make_unique<FakeAgent>(served_.channel(), std::move(options));
    served_.MustCreate("logged");
    const v1::Launch launch = agent_->AwaitLaunch();
    agent_->SendRunning(launch.attempt(), 1);
    served_.AwaitState("logged", v1::JOB_STATE_RUNNING);
    return launch;
  }

  std::string ReadAll(const v1::StreamLogsRequest& request, grpc::Status* status = nullptr) {
    grpc::ClientContext context;
    SetDeadline(&context);
    const auto reader = served_.jobs().StreamLogs(&context, request);
    v1::StreamLogsResponse message;
    std::string text;
    while (reader->Read(&message)) text += message.text();
    const grpc::Status end = reader->Finish();
    if (status != nullptr) *status = end;
    return text;
  }

  static v1::StreamLogsRequest Request() {
    v1::StreamLogsRequest request;
    request.set_name("logged");
    return request;
  }

  ServedCoordinator served_;
  std::unique_ptr<FakeAgent> agent_;
};

TEST_F(Logs, AllFilesComeInWholeLinesWithTheirNames) {
  FakeAgentOptions options;
  options.files = {{"rank-0.err", "first\nsecond line\nno end"}, {"mpirun.out", "hello\n"}};
  Launch(options);
  EXPECT_EQ(ReadAll(Request()),
            "mpirun.out: hello\n"
            "rank-0.err: first\nrank-0.err: second line\nrank-0.err: no end\n");
}

TEST_F(Logs, OneFileComesAsItIs) {
  FakeAgentOptions options;
  options.files = {{"rank-0.err", "a\nb\n"}, {"mpirun.out", "hello\n"}};
  Launch(options);
  v1::StreamLogsRequest request = Request();
  request.set_file("rank-0.err");
  EXPECT_EQ(ReadAll(request), "a\nb\n");
  request.set_tail_bytes(2);
  EXPECT_EQ(ReadAll(request), "b\n");
}

TEST_F(Logs, BytesThatAreNoTextAreReplaced) {
  FakeAgentOptions options;
  options.files = {{"rank-0.err", "gr\xc3\xbc\xc3\x9f dich \xff\n"}};
  Launch(options);
  v1::StreamLogsRequest request = Request();
  request.set_file("rank-0.err");
  EXPECT_EQ(ReadAll(request), "gr\xc3\xbc\xc3\x9f dich \xef\xbf\xbd\n");
}

TEST_F(Logs, FollowingSeesWhatComesLaterAndEndsWithTheJob) {
  FakeAgentOptions options;
  options.files = {{"rank-0.err", "begun\n"}};
  const v1::Launch launch = Launch(options);
  grpc::ClientContext context;
  SetDeadline(&context);
  v1::StreamLogsRequest request = Request();
  request.set_follow(true);
  const auto reader = served_.jobs().StreamLogs(&context, request);
  v1::StreamLogsResponse message;
  ASSERT_TRUE(reader->Read(&message));
  EXPECT_EQ(message.text(), "rank-0.err: begun\n");
  agent_->WriteFile("rank-0.err", "begun\ndone\n");
  agent_->SendEnded(launch.attempt(), "OK");
  std::string rest;
  while (reader->Read(&message)) rest += message.text();
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(rest, "rank-0.err: done\n");
}

TEST_F(Logs, OfAJobWithoutAttemptsSayWhyThereAreNone) {
  served_.MustCreate("logged");
  grpc::Status status;
  EXPECT_EQ(ReadAll(Request(), &status), "");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_NE(status.error_message().find("has had no attempt, so there are no logs; it is PENDING "
                                        "(NO_WORKER): no worker takes jobs now"),
            std::string::npos)
      << status.error_message();
}

TEST_F(Logs, OfALostWorkerAreUnavailable) {
  Launch({});
  agent_->Disconnect();
  grpc::Status status;
  ReadAll(Request(), &status);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_NE(status.error_message().find("worker 'w1' is not connected"), std::string::npos)
      << status.error_message();
}

TEST_F(Logs, AQuestionEndsWithTheStreamItWasAskedOn) {
  FakeAgentOptions options;
  options.answers_logs = false;
  Launch(options);
  grpc::ClientContext context;
  SetDeadline(&context);
  const auto reader = served_.jobs().StreamLogs(&context, Request());
  agent_->Await(v1::ChannelResponse::kReadLogs);
  agent_->Disconnect();
  v1::StreamLogsResponse message;
  EXPECT_FALSE(reader->Read(&message));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(Logs, ReportsComeWhole) {
  FakeAgentOptions options;
  options.files = {{"report:html", "<html>a long report</html>"},
                   {"report:json", "{\"version\":1}"}};
  const v1::Launch launch = Launch(options);
  agent_->SendEnded(launch.attempt(), "OK");
  served_.AwaitState("logged", v1::JOB_STATE_SUCCEEDED);
  v1::GetReportRequest request;
  request.set_name("logged");
  v1::GetReportResponse response;
  grpc::ClientContext html;
  SetDeadline(&html);
  ASSERT_TRUE(served_.jobs().GetReport(&html, request, &response).ok());
  EXPECT_EQ(response.content(), "<html>a long report</html>");
  EXPECT_EQ(response.media_type(), "text/html");
  request.set_format("json");
  grpc::ClientContext json;
  SetDeadline(&json);
  ASSERT_TRUE(served_.jobs().GetReport(&json, request, &response).ok());
  EXPECT_EQ(response.content(), "{\"version\":1}");
}

}  // namespace
}  // namespace tandem::service
