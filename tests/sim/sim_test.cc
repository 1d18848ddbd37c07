// Simulated worlds by seed. TANDEM_SIM_FIRST and TANDEM_SIM_SEEDS choose them: nightly runs take
// many, a replay takes one.
#include <gtest/gtest.h>

#include <cstdlib>
#include <set>

#include "tests/sim/world.h"

namespace tandem::sim {
namespace {

int64_t FromEnvironment(const char* name, int64_t fallback) {
  const char* text = std::getenv(name);
  return text == nullptr ? fallback : std::strtoll(text, nullptr, 10);
}

std::string Replay(int64_t seed) {
  return "replay: TANDEM_SIM_FIRST=" + std::to_string(seed) +
         " TANDEM_SIM_SEEDS=1 sim_test --gtest_filter=Sim.AllWorldsEndWell";
}

TEST(Sim, AllWorldsEndWell) {
  const int64_t first = FromEnvironment("TANDEM_SIM_FIRST", 1);
  const int64_t seeds = FromEnvironment("TANDEM_SIM_SEEDS", 200);
  ASSERT_GT(seeds, 0);
  Truth all;
  for (int64_t seed = first; seed < first + seeds; ++seed) {
    World world(static_cast<uint64_t>(seed), Sabotage::kNone);
    const Truth& truth = world.Run();
    ASSERT_TRUE(truth.broken.empty()) << truth.broken[0] << "\n" << Replay(seed);
    all.steps += truth.steps;
    all.coordinator_crashes += truth.coordinator_crashes;
    all.agent_crashes += truth.agent_crashes;
    all.successes += truth.successes;
    all.reclaimed += truth.reclaimed;
  }
  RecordProperty("steps", std::to_string(all.steps));
  RecordProperty("coordinator_crashes", std::to_string(all.coordinator_crashes));
  RecordProperty("agent_crashes", std::to_string(all.agent_crashes));
  RecordProperty("reclaimed", std::to_string(all.reclaimed));
  // A simulation in which nothing happens proves nothing.
  EXPECT_GT(all.successes, seeds);
  if (seeds < 20) return;
  EXPECT_GT(all.coordinator_crashes, seeds);
  EXPECT_GT(all.agent_crashes, seeds);
  EXPECT_GT(all.reclaimed, 0);
}

TEST(Sim, TheSameSeedGivesTheSameWorld) {
  std::set<uint64_t> traces;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    World once(seed, Sabotage::kNone);
    World twice(seed, Sabotage::kNone);
    const uint64_t trace = once.Run().trace.value();
    EXPECT_EQ(trace, twice.Run().trace.value()) << Replay(static_cast<int64_t>(seed));
    traces.insert(trace);
  }
  EXPECT_EQ(traces.size(), 20U);
}

class SabotageTest : public testing::TestWithParam<std::pair<Sabotage, const char*>> {};

// Canaries: a planted bug must be found within a few worlds, and by the check that is meant for it.
TEST_P(SabotageTest, IsFound) {
  const auto& [sabotage, expected] = GetParam();
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    World world(seed, sabotage);
    const Truth& truth = world.Run();
    for (const std::string& broken : truth.broken) {
      if (!broken.starts_with(expected)) continue;
      RecordProperty("found_by_seed", std::to_string(seed));
      return;
    }
  }
  FAIL() << "nobody noticed: " << expected;
}

INSTANTIATE_TEST_SUITE_P(All, SabotageTest,
                         testing::Values(std::pair(Sabotage::kAcceptStaleEnds, "I4"),
                                         std::pair(Sabotage::kCommandBeforeCommit, "I6"),
                                         std::pair(Sabotage::kForgetRequests, "I9"),
                                         std::pair(Sabotage::kFreeFencedSlots, "I2")));

}  // namespace
}  // namespace tandem::sim
