#include "worker/agent/channel.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <algorithm>
#include <utility>

namespace tandem::agent {
namespace {

constexpr int kMaxMessageBytes = 16 << 20;
constexpr int64_t kFirstWaitMs = 100;
constexpr int64_t kLongestWaitMs = 2000;

std::shared_ptr<grpc::Channel> Connect(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetMaxSendMessageSize(kMaxMessageBytes);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 20'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5'000);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, static_cast<int>(kLongestWaitMs));
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

}  // namespace

Channel::Channel(const std::string& address, Deliver deliver, Listener listener)
    : stub_(v1::WorkerControl::NewStub(Connect(address))),
      deliver_(std::move(deliver)),
      listener_(std::move(listener)),
      thread_([this](const std::stop_token& stop) { Run(stop); }) {}

Channel::~Channel() {
  thread_.request_stop();
  MutexLock lock(mu_);
  if (context_ != nullptr) context_->TryCancel();
}

bool Channel::Send(int64_t stream, v1::ChannelRequest message) {
  MutexLock lock(mu_);
  if (stream == 0 || stream != stream_) return false;
  if (queue_.size() >= kMaxWaiting) {
    if (context_ != nullptr) context_->TryCancel();
    return false;
  }
  queue_.push_back(std::move(message));
  changed_.notify_all();
  return true;
}

void Channel::Reset(int64_t stream) {
  MutexLock lock(mu_);
  if (stream == stream_ && context_ != nullptr) context_->TryCancel();
}

void Channel::Run(const std::stop_token& stop) {
  int64_t wait_ms = kFirstWaitMs;
  while (!stop.stop_requested()) {
    if (RunStream(stop)) wait_ms = kFirstWaitMs;
    Wait(stop, wait_ms);
    wait_ms = std::min(2 * wait_ms, kLongestWaitMs);
  }
}

void Channel::Wait(const std::stop_token& stop, int64_t ms) {
  MutexLock lock(mu_);
  changed_.wait_for(mu_, stop, std::chrono::milliseconds(ms), [] { return false; });
}

bool Channel::RunStream(const std::stop_token& stop) {
  grpc::ClientContext context;
  int64_t number = 0;
  {
    MutexLock lock(mu_);
    if (stop.stop_requested()) return false;
    number = next_stream_++;
    stream_ = number;
    context_ = &context;
  }
  const std::unique_ptr<Stream> stream = stub_->Channel(&context);
  deliver_([this, number] { listener_.opened(number); });
  bool heard = false;
  {
    std::jthread writer([this, &stream](const std::stop_token& end) { WriteQueued(end, *stream); });
    v1::ChannelResponse message;
    while (stream->Read(&message)) {
      heard = true;
      deliver_([this, number, moved = std::move(message)]() mutable {
        listener_.received(number, std::move(moved));
      });
      message = v1::ChannelResponse();
    }
    // The call is over, so the writer's Write fails too.
  }
  const grpc::Status status = stream->Finish();
  {
    MutexLock lock(mu_);
    stream_ = 0;
    context_ = nullptr;
    queue_.clear();
  }
  const Status end(static_cast<Code>(status.error_code()), status.error_message());
  deliver_([this, number, end] { listener_.closed(number, end); });
  return heard;
}

void Channel::WriteQueued(const std::stop_token& stop, Stream& stream) {
  for (;;) {
    v1::ChannelRequest message;
    {
      MutexLock lock(mu_);
      changed_.wait(mu_, stop, [this]() TANDEM_REQUIRES(mu_) { return !queue_.empty(); });
      if (stop.stop_requested()) return;
      message = std::move(queue_.front());
      queue_.pop_front();
    }
    if (!stream.Write(message)) return;  // Read ends too, and with it the stream
  }
}

}  // namespace tandem::agent
