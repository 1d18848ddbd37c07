#include "tests/sim/world.h"

#include <algorithm>
#include <set>

namespace tandem::sim {
namespace {

constexpr int64_t kLivenessMs = 1'800'000;  // virtual; all jobs end within it once healed

}  // namespace

World::World(uint64_t seed, Sabotage sabotage)
    : rng_(seed),
      network_(timeline_, rng_),
      coordinator_(timeline_, rng_, truth_, sabotage),
      client_(timeline_, rng_, truth_,
              [this](core::Event event) { coordinator_.Post(std::move(event)); }) {
  const int64_t num_agents = rng_.Between(1, 4);
  for (int64_t i = 1; i <= num_agents; ++i) {
    const Agent::Size size{rng_.Between(1, 4), rng_.Between(0, 4)};
    largest_gang_ = std::max(largest_gang_, size.slots);
    largest_on_gpus_ = std::max(largest_on_gpus_, std::min(size.slots, size.gpus));
    const std::string name = "w" + std::to_string(i);
    Agent::Outlets outlets;
    outlets.post = [this](core::Event event) { coordinator_.Post(std::move(event)); };
    outlets.coordinator_is_up = [this] { return coordinator_.is_up(); };
    agents_[name] =
        std::make_unique<Agent>(name, size, timeline_, rng_, network_, truth_, std::move(outlets));
  }
  jobs_left_ = rng_.Between(3, 24);
  heal_at_ms_ = rng_.Between(40'000, 120'000);
  Wire();
}

void World::Wire() {
  Coordinator::Outlets outlets;
  outlets.command = [this](const core::Command& command) {
    Agent& agent = *agents_.at(command.worker);
    network_.Send(command.connection, /*up=*/false, [&agent, command] { agent.Receive(command); });
  };
  outlets.reply = [this](const core::Reply& reply) {
    if (is_calm_ || !rng_.Chance(100)) client_.OnReply(reply);  // else lost
  };
  outlets.crashed = [this] { network_.BreakAll(); };
  coordinator_.Connect(std::move(outlets));
}

const Truth& World::Run() {
  coordinator_.Start();
  for (auto& [name, agent] : agents_) {
    timeline_.After(rng_.Between(0, 5'000), [&agent = *agent] { agent.Start(); });
  }
  PlanTrouble();
  timeline_.After(heal_at_ms_, [this] { Heal(); });
  int64_t over_since_ms = 0;
  while (truth_.broken.empty() && timeline_.RunNext()) {
    if (!is_calm_ || !IsOver()) {
      over_since_ms = timeline_.now_ms();
    } else if (timeline_.now_ms() - over_since_ms > 30'000) {
      CheckEnd();
      return truth_;
    }
    if (timeline_.now_ms() > heal_at_ms_ + kLivenessMs) {
      truth_.broken.push_back("liveness: not all jobs have ended");
    }
  }
  return truth_;
}

void World::PlanTrouble() {
  timeline_.After(rng_.Between(100, 2'500), [this] {
    if (is_calm_) return;
    Trouble();
    PlanTrouble();
  });
}

Agent& World::AnyAgent() {
  auto agent = agents_.begin();
  std::advance(agent, rng_.Between(0, static_cast<int64_t>(agents_.size()) - 1));
  return *agent->second;
}

void World::Trouble() {
  if (jobs_left_ > 0 && rng_.Chance(400)) {
    --jobs_left_;
    client_.Submit(largest_gang_, largest_on_gpus_);
    return;
  }
  switch (rng_.Between(0, 15)) {
    case 0:
      return coordinator_.Crash();
    case 1:
    case 2:
      return AnyAgent().Crash();
    case 3:
    case 4:
    case 5:
      return AnyAgent().BreakStream();
    case 6:
      return AnyAgent().Freeze(rng_.Between(500, 30'000));
    case 7:
    case 10:
      return client_.CancelSomething();
    case 8:
      return client_.Drain(AnyAgent().name());
    case 9:
      return coordinator_.Post(core::WorkerUndrainRequested{0, AnyAgent().name()});
    default:
      return;  // a quiet moment
  }
}

void World::Heal() {
  is_calm_ = true;
  network_.SetCalm();
  coordinator_.SetCalm();
  if (!coordinator_.is_up()) coordinator_.Start();
  for (auto& [name, agent] : agents_) agent->SetCalm();
  for (; jobs_left_ > 0; --jobs_left_) client_.Submit(largest_gang_, largest_on_gpus_);
  timeline_.After(5'000, [this] {
    for (const auto& [name, agent] : agents_) client_.Undrain(name);
  });
}

bool World::IsOver() const {
  if (client_.is_waiting() || timeline_.now_ms() < heal_at_ms_ + 10'000) return false;
  for (const auto& [uid, job] : coordinator_.state().jobs) {
    if (!IsTerminal(job.state)) return false;
  }
  return true;
}

void World::CheckEnd() {
  const core::State& state = coordinator_.state();
  std::map<std::string, int> jobs_of_request;
  for (const auto& [uid, job] : state.jobs) {
    ++jobs_of_request[*job.spec];
    truth_.successes += job.state == core::JobState::kSucceeded ? 1 : 0;
  }
  for (const auto& [request_id, count] : jobs_of_request) {
    if (count != 1)
      truth_.broken.push_back("I9: " + request_id + " made " + std::to_string(count) + " jobs");
  }
  for (const auto& [request_id, uid] : client_.promised()) {
    if (!state.jobs.contains(uid))
      truth_.broken.push_back("promise: " + request_id + " was accepted and is lost");
  }
  for (const auto& [name, worker] : state.workers) {
    if (!worker.occupants.empty())
      truth_.broken.push_back("leak: slots of " + name + " are still taken");
  }
  for (const auto& [name, agent] : agents_) {
    if (!agent->is_idle())
      truth_.broken.push_back("leak: " + name + " still runs or repeats something");
  }
  truth_.trace.Add(static_cast<int64_t>(core::StateHash(state)));
  CheckHistory();
}

// I10: what watchers were told is the whole history, and leads to the present.
void World::CheckHistory() {
  std::map<core::JobUid, core::JobState> states;
  core::Revision revision = 0;
  for (const auto& [number, event] : coordinator_.disk().events) {
    if (number != ++revision)
      truth_.broken.push_back("I10: the history has a gap at " + std::to_string(revision));
    if (states.contains(event.job) && states[event.job] != event.before) {
      truth_.broken.push_back("I10: the history of " + event.job + " does not join at " +
                              std::to_string(number));
    }
    states[event.job] = event.after;
  }
  for (const auto& [uid, job] : coordinator_.state().jobs) {
    if (!states.contains(uid) || states[uid] != job.state) {
      truth_.broken.push_back("I10: the history of " + uid + " ends elsewhere");
    }
  }
}

}  // namespace tandem::sim
