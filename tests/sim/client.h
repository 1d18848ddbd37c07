// Client: users who submit, repeat what was not answered (with the same request id), cancel, drain
// and undrain; and who remember what they were promised.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "coordinator/core/event.h"
#include "tests/sim/rng.h"
#include "tests/sim/timeline.h"
#include "tests/sim/truth.h"

namespace tandem::sim {

class Client {
 public:
  Client(Timeline& timeline, Rng& rng, Truth& truth, std::function<void(core::Event)> post)
      : timeline_(timeline), rng_(rng), truth_(truth), post_(std::move(post)) {}

  // largest_on_gpus: 0 if no worker has a GPU.
  void Submit(int64_t largest_gang, int64_t largest_on_gpus);
  void CancelSomething();
  void Drain(const std::string& worker) { post_(core::WorkerDrainRequested{NextToken(), worker}); }
  // Repeated until answered.
  void Undrain(const std::string& worker);
  void OnReply(const core::Reply& reply);

  bool is_waiting() const { return !open_.empty(); }
  // Request id -> the job it was acknowledged as.
  const std::map<std::string, core::JobUid>& promised() const { return promised_; }

 private:
  struct Open {
    std::string request_id;  // "": an undrain
    std::function<void()> repeat;
  };
  core::RequestToken NextToken() { return ++token_; }
  void Ask(const std::string& request_id, int64_t slots, int64_t gpus, int64_t priority);
  void Expect(core::RequestToken token, std::string request_id, std::function<void()> repeat);

  Timeline& timeline_;
  Rng& rng_;
  Truth& truth_;
  std::function<void(core::Event)> post_;
  core::RequestToken token_ = 0;
  int64_t next_request_ = 1;
  int64_t next_uid_ = 1;
  std::map<core::RequestToken, Open> open_;
  std::map<std::string, core::JobUid> promised_;
};

}  // namespace tandem::sim
