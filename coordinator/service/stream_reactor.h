// StreamReactor: the sending half of a server stream with a bounded queue.
//
// gRPC's callback API takes one write at a time and must see Finish exactly once, after the last
// write. This holds both rules, so that a watcher, a log reader or an agent's channel only says
// Send and Close. Any thread may call Send and Close. gRPC's own threads call the On... functions.
// The object owns itself from Hold() until OnDone; others keep a shared_ptr or weak_ptr, and Send
// returns false once the stream is closing. No gRPC call is made under the lock: gRPC may run the
// next On... function inside it.
#pragma once

#include <grpcpp/grpcpp.h>
#include <grpcpp/support/server_callback.h>

#include <deque>
#include <memory>
#include <optional>
#include <utility>

#include "base/mutex.h"

namespace tandem::service {

// Base: grpc::ServerWriteReactor<Message> or grpc::ServerBidiReactor<..., Message>.
template <class Base, class Message>
class StreamReactor : public Base,
                      public std::enable_shared_from_this<StreamReactor<Base, Message>> {
 public:
  // capacity: messages that may wait; the next one is refused.
  explicit StreamReactor(size_t capacity) : capacity_(capacity) {}

  // Queues the message. False when the queue is full or the stream is closing; the message is gone
  // then.
  bool Send(Message message) {
    const Message* next = nullptr;
    {
      MutexLock lock(mu_);
      if (closing_ || waiting_.size() >= capacity_) return false;
      waiting_.push_back(std::move(message));
      next = TakeNext();
    }
    if (next != nullptr) this->StartWrite(next);
    return true;
  }

  // Ends the stream with `status` once what waits has been written. The first call counts.
  void Close(grpc::Status status) { End(std::move(status), /*drop_waiting=*/false); }
  // The same without writing what waits.
  void Abort(grpc::Status status) { End(std::move(status), /*drop_waiting=*/true); }

  size_t waiting() const {
    MutexLock lock(mu_);
    return waiting_.size();
  }
  size_t capacity() const { return capacity_; }
  bool closing() const {
    MutexLock lock(mu_);
    return closing_;
  }

 protected:
  // Keeps the object alive until OnDone. Called once by whoever hands it to gRPC.
  void Hold() { self_ = this->shared_from_this(); }
  // The stream is over; no On... function follows. Runs before the object lets go of itself.
  virtual void OnEnded() {}
  // A message has been written and the queue is empty.
  virtual void OnDrained() {}

 private:
  // The next message to write, when none is being written. It stays in place until its OnWriteDone.
  const Message* TakeNext() TANDEM_REQUIRES(mu_) {
    if (writing_ || finished_ || waiting_.empty()) return nullptr;
    writing_ = true;
    current_ = std::move(waiting_.front());
    waiting_.pop_front();
    return &current_;
  }

  void End(grpc::Status status, bool drop_waiting) {
    bool finish_now = false;
    {
      MutexLock lock(mu_);
      if (drop_waiting) waiting_.clear();
      if (!closing_) final_ = std::move(status);
      closing_ = true;
      finish_now = MayFinish();
    }
    if (finish_now) this->Finish(final_);
  }

  // True once: the caller finishes the stream.
  bool MayFinish() TANDEM_REQUIRES(mu_) {
    if (!closing_ || writing_ || finished_ || !waiting_.empty()) return false;
    finished_ = true;
    return true;
  }

  void OnWriteDone(bool ok) final {
    const Message* next = nullptr;
    bool finish_now = false;
    bool drained = false;
    {
      MutexLock lock(mu_);
      writing_ = false;
      if (!ok) {
        if (!closing_) final_ = grpc::Status(grpc::StatusCode::CANCELLED, "the peer is gone");
        closing_ = true;
        waiting_.clear();
      }
      next = TakeNext();
      finish_now = MayFinish();
      drained = next == nullptr && !closing_;
    }
    if (next != nullptr) this->StartWrite(next);
    if (finish_now) this->Finish(final_);
    if (drained) OnDrained();
  }

  void OnCancel() final {
    Abort(grpc::Status(grpc::StatusCode::CANCELLED, "cancelled by the peer"));
  }

  void OnDone() final {
    OnEnded();
    const auto last = std::move(self_);
  }

  const size_t capacity_;
  std::shared_ptr<void> self_;
  mutable Mutex mu_;
  std::deque<Message> waiting_ TANDEM_GUARDED_BY(mu_);
  Message current_;     // belongs to gRPC while writing_
  grpc::Status final_;  // set once, before closing_
  bool writing_ TANDEM_GUARDED_BY(mu_) = false;
  bool closing_ TANDEM_GUARDED_BY(mu_) = false;
  bool finished_ TANDEM_GUARDED_BY(mu_) = false;
};

}  // namespace tandem::service
