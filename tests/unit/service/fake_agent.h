// FakeAgent: speaks an agent's side of WorkerControl.Channel over real gRPC, and does what the test
// says.
//
// Questions (inspect, logs) are answered at once by its own reader thread; commands wait in a queue
// for Await.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "base/mutex.h"
#include "tests/unit/service/served_coordinator.h"

namespace tandem::service {

struct FakeAgentOptions {
  std::string worker = "w1";
  std::string incarnation = "first";
  int64_t slots = 1;
  std::vector<v1::AttemptRef> live, ended;
  std::vector<v1::Violation> violations;  // the answer to every inspect
  bool answers_inspect = true;
  bool answers_logs = true;  // false: they wait for Await as commands do
  std::map<std::string, std::string>
      files;               // an attempt's log files, and "report:html", "report:json"
  size_t chunk_bytes = 5;  // how much of a file one answer holds
};

class FakeAgent {
 public:
  explicit FakeAgent(const std::shared_ptr<grpc::Channel>& channel, FakeAgentOptions options = {});
  ~FakeAgent();

  // The next command of that kind, which is taken from the queue; fails the test after kPatience.
  v1::ChannelResponse Await(v1::ChannelResponse::MessageCase kind);
  v1::Launch AwaitLaunch();
  void Send(const v1::ChannelRequest& message);
  void SendRunning(const v1::AttemptRef& attempt, int64_t step);
  void SendEnded(const v1::AttemptRef& attempt, const std::string& cause,
                 const std::string& detail = "");
  void Heartbeat(const std::vector<v1::AttemptRef>& running);
  // What a log file holds from now on.
  void WriteFile(const std::string& name, const std::string& content);
  int inspections() const;
  // Commands of that kind that wait for Await.
  int Waiting(v1::ChannelResponse::MessageCase kind) const;
  // Ends the stream as a lost connection does; the stream's status.
  grpc::Status Disconnect();
  // Waits until the coordinator has ended the stream.
  grpc::Status AwaitEnd();

 private:
  void Read();
  void AnswerInspect(const v1::Inspect& question);
  void AnswerLogs(const v1::ReadLogs& question);

  FakeAgentOptions options_;
  grpc::ClientContext context_;
  std::unique_ptr<v1::WorkerControl::Stub> stub_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::ChannelRequest, v1::ChannelResponse>> stream_;
  Mutex write_mu_;
  mutable Mutex mu_;
  CondVar changed_;
  std::deque<v1::ChannelResponse> commands_ TANDEM_GUARDED_BY(mu_);
  std::map<std::string, std::string> files_ TANDEM_GUARDED_BY(mu_);
  int inspections_ TANDEM_GUARDED_BY(mu_) = 0;
  bool ended_ TANDEM_GUARDED_BY(mu_) = false;
  std::thread reader_;
};

// Takes a launched job through RUNNING to its end with a report and an artifact.
void RunToSuccess(FakeAgent& agent, const v1::Launch& launch);

}  // namespace tandem::service
