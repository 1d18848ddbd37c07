#include "tests/sim/client.h"

#include <utility>

namespace tandem::sim {

constexpr int64_t kTimeoutMs = 5'000;

void Client::Submit(int64_t largest_gang, int64_t largest_on_gpus) {
  const std::string request_id = "r" + std::to_string(next_request_++);
  const bool on_gpus = largest_on_gpus > 0 && rng_.Chance(400);
  const int64_t slots = rng_.Between(1, on_gpus ? largest_on_gpus : largest_gang);
  Ask(request_id, slots, on_gpus ? slots : 0, rng_.Between(-1, 1));
}

void Client::Ask(const std::string& request_id, int64_t slots, int64_t gpus, int64_t priority) {
  core::JobCreated event;
  event.token = NextToken();
  event.request_id = request_id;
  event.request_digest = request_id;
  event.uid = "u" + std::to_string(next_uid_++);  // the service chooses a fresh one for each call
  event.project = "default";
  event.name = "job";
  event.priority = priority;
  event.slots = slots;
  event.gpus = gpus;
  event.spec = core::MakeBlob((gpus > 0 ? "cuda " : "cpu ") + request_id);
  Expect(event.token, request_id, [=, this] { Ask(request_id, slots, gpus, priority); });
  post_(std::move(event));
}

void Client::Undrain(const std::string& worker) {
  const core::RequestToken token = NextToken();
  Expect(token, "", [this, worker] { Undrain(worker); });
  post_(core::WorkerUndrainRequested{token, worker});
}

void Client::Expect(core::RequestToken token, std::string request_id,
                    std::function<void()> repeat) {
  open_[token] = {std::move(request_id), std::move(repeat)};
  timeline_.After(kTimeoutMs, [this, token] {
    const auto open = open_.extract(token);
    if (!open.empty()) open.mapped().repeat();
  });
}

void Client::CancelSomething() {
  if (promised_.empty()) return;
  auto job = promised_.begin();
  std::advance(job, rng_.Between(0, static_cast<int64_t>(promised_.size()) - 1));
  post_(core::JobCancelRequested{NextToken(), job->second, 0});
}

void Client::OnReply(const core::Reply& reply) {
  const auto open = open_.extract(reply.token);
  if (open.empty() || open.mapped().request_id.empty()) return;
  if (!reply.status.ok()) {
    truth_.broken.push_back("a create was refused: " + reply.status.ToString());
    return;
  }
  const auto [promise, is_first] = promised_.try_emplace(open.mapped().request_id, reply.job);
  if (promise->second != reply.job) {
    truth_.broken.push_back("I9: " + promise->first + " was answered with two jobs");
  }
}

}  // namespace tandem::sim
