// The agent's world in tests: a coordinator that a test speaks for, and the real tandem-worker as a
// process.
#pragma once

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "tandem/v1/fleet.grpc.pb.h"

namespace tandem::agent {

inline constexpr int kDeadlineSeconds =
    60;  // nothing takes this long: whoever waits so long has failed

// Remembers all that the agent says and answers as the real one would: registers, acknowledges.
class FakeCoordinator : public v1::WorkerControl::Service {
 public:
  explicit FakeCoordinator(int64_t lease_ms = 20'000);
  ~FakeCoordinator() override;
  const std::string& address() const { return address_; }

  void Send(v1::ChannelResponse message);
  void Launch(const std::string& uid, int64_t epoch, const std::string& what, int64_t ranks = 1);
  void Launch(const std::string& uid, int64_t epoch, const std::string& what,
              const v1::JobSpec& spec);
  void Stop(const std::string& uid, int64_t epoch, v1::Stop::Kind kind);
  // Ends the stream under way.
  void DropStream();
  void AcknowledgeEnds(bool yes);
  // Answers nothing more on the stream under way, but keeps it open.
  void GoSilent();

  using Messages = std::vector<v1::ChannelRequest>;
  // Until the predicate holds for all that was said so far; fails the test after the deadline.
  bool Await(const std::string& what, const std::function<bool(const Messages&)>& holds);
  v1::AttemptStatus AwaitEnd(const std::string& uid, int64_t epoch);
  void AwaitTraining(const std::string& uid, int64_t epoch, int64_t step = 3);
  // The newest registration, once there have been `count`.
  v1::Register AwaitRegistration(size_t count);
  Messages Said();

  using Stream = grpc::ServerReaderWriter<v1::ChannelResponse, v1::ChannelRequest>;
  grpc::Status Channel(grpc::ServerContext* context, Stream* stream) override;

 private:
  void Answer(const v1::ChannelRequest& message, Stream* stream);

  std::mutex mu_;
  std::condition_variable changed_;
  Messages said_;
  Stream* stream_ = nullptr;
  grpc::ServerContext* context_ = nullptr;
  const int64_t lease_ms_;
  bool acknowledge_ = true;
  bool silent_ = false;
  std::string address_;
  std::unique_ptr<grpc::Server> server_;
};

// tandem-worker as a child of the test.
class WorkerProcess {
 public:
  WorkerProcess(const std::string& work, const std::string& coordinator,
                const std::vector<std::string>& more = {});
  ~WorkerProcess();
  WorkerProcess(const WorkerProcess&) = delete;
  WorkerProcess& operator=(const WorkerProcess&) = delete;
  void Signal(int number) const;
  // Its exit code, or 128 + signal.
  int Wait();
  std::string Log() const;

 private:
  std::string work_;
  int pid_ = -1;
};

// A resolved job of one attention transfer on the example model; `ranks` data-parallel.
v1::JobSpec SmallSpec(int64_t ranks = 1);
// A fresh folder, removed at the end of the test program.
std::string TemporaryFolder();
// Processes of this work folder's worker "w".
size_t CountMarked(const std::string& work);
bool AwaitTrue(const std::string& what, const std::function<bool()>& holds);
// GET /metrics of the worker "w".
std::string Scrape(const std::string& work);

}  // namespace tandem::agent
