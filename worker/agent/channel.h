// Channel: the agent's one stream to its coordinator, opened again whenever it ends.
//
// Each stream has a number. The owner is told Opened (say `register` now), each message, and
// Closed; all on the thread that `deliver` brings them to, in order. Messages sent for a stream
// that has ended are dropped: what must arrive is repeated by whoever knows that (outbox,
// heartbeats). Between streams it waits 0.1 s, doubling up to 2 s. Send, Reset and Stop are for any
// thread.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <thread>

#include "base/mutex.h"
#include "base/status.h"
#include "tandem/v1/fleet.grpc.pb.h"

namespace tandem::agent {

class Channel {
 public:
  static constexpr size_t kMaxWaiting = 8192;
  struct Listener {
    std::function<void(int64_t stream)> opened;
    std::function<void(int64_t stream, v1::ChannelResponse)> received;
    std::function<void(int64_t stream, Status)> closed;
  };
  using Deliver = std::function<void(std::function<void()>)>;

  Channel(const std::string& address, Deliver deliver, Listener listener);
  ~Channel();
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  // Queues; false when the stream has ended or its queue is full (then the stream is ended).
  bool Send(int64_t stream, v1::ChannelRequest message);
  // Ends the stream, for instance because its peer is silent; a new one is opened.
  void Reset(int64_t stream);

 private:
  using Stream = grpc::ClientReaderWriter<v1::ChannelRequest, v1::ChannelResponse>;
  void Run(const std::stop_token& stop);
  // One stream from its start to its end. True: the coordinator said something.
  bool RunStream(const std::stop_token& stop);
  void WriteQueued(const std::stop_token& stop, Stream& stream);
  void Wait(const std::stop_token& stop, int64_t ms);

  const std::unique_ptr<v1::WorkerControl::Stub> stub_;
  const Deliver deliver_;
  const Listener listener_;
  Mutex mu_;
  std::condition_variable_any changed_;
  int64_t stream_ TANDEM_GUARDED_BY(mu_) = 0;  // 0: none now
  int64_t next_stream_ TANDEM_GUARDED_BY(mu_) = 1;
  grpc::ClientContext* context_ TANDEM_GUARDED_BY(mu_) = nullptr;
  std::deque<v1::ChannelRequest> queue_ TANDEM_GUARDED_BY(mu_);
  std::jthread thread_;  // last: it uses the others
};

}  // namespace tandem::agent
