// EventChannel: the rank's end of the socket to its agent.
//
// Training never waits for it: messages go into a queue that a writer thread empties; a reader
// thread takes requests and watches for the end of file. When the agent is gone, or says kill, the
// process leaves at once: a rank without an agent is an orphan whose work nobody may use. Without a
// socket (tests) messages are dropped. Send, TakeRequest and SetInterruptible: any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <thread>

#include "base/mutex.h"
#include "base/status.h"
#include "worker/plan/messages.h"

namespace tandem {

// What the agent asks for, ordered: of several requests the greatest counts.
enum class ControlRequest : int64_t { kNone = 0, kCheckpoint = 1, kCheckpointStop = 2, kStop = 3 };

class EventChannel {
 public:
  // socket empty: no agent. Sends hello.
  static Result<std::unique_ptr<EventChannel>> Connect(const std::string& socket, int64_t epoch,
                                                       int64_t rank);
  // Sends what is queued, then closes.
  ~EventChannel();
  EventChannel(const EventChannel&) = delete;
  EventChannel& operator=(const EventChannel&) = delete;

  // Fills epoch, rank and seq. A full queue drops `progress`; others always get in.
  void Send(RankMessage message);
  // The greatest request since the last call.
  ControlRequest TakeRequest();
  // While true a request to stop ends the process at once (exit code 15): evaluation and export
  // begin from a committed checkpoint, so there is nothing to save.
  void SetInterruptible(bool interruptible);

 private:
  EventChannel(int fd, int64_t epoch, int64_t rank);
  void WriteQueued();
  void ReadRequests();
  void Obey(const AgentMessage& message);

  const int fd_;
  const int64_t epoch_, rank_;
  std::atomic<int64_t> request_{0};
  std::atomic<bool> interruptible_{false}, closing_{false};
  Mutex mu_;
  CondVar changed_;
  std::deque<std::string> queue_ TANDEM_GUARDED_BY(mu_);
  int64_t seq_ TANDEM_GUARDED_BY(mu_) = 0;
  bool closed_ TANDEM_GUARDED_BY(mu_) = false;
  std::jthread writer_, reader_;
};

}  // namespace tandem
