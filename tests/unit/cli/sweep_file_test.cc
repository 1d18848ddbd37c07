// A sweep file becomes jobs: merged, checked, with the faults in their lines.
#include "cli/sweep_file.h"

#include <gtest/gtest.h>

#include "cli/job_file.h"

namespace tandem::cli {
namespace {

constexpr char kSweep[] = R"(base:
  model: {path: m}
  data: {train: [a.jsonl], sequence_length: 256}
  attention:
    window: {size: 32, sinks: 2}
  finetune: {steps: 10, learning_rate: 1.0e-3, clip_norm: 0.5}
runs:
  - name: plain
    recipe: lolcats
  - name: dropped
    recipe: ssd
    attention: {window: {size: 64}}
    finetune: {learning_rate: 2.0e-3, clip_norm: null, ssd: {schedule: [0.9, 0.1]}}
)";

std::string Messages(const SweepOutcome& outcome) {
  return FaultLines("s.yaml", outcome.violations);
}

TEST(ReadSweep, RunsAreTheBaseWithTheirFieldsOverIt) {
  const auto outcome = ReadSweep(kSweep, "/w");
  ASSERT_EQ(Messages(outcome), "");
  ASSERT_EQ(outcome.sweep.runs.size(), 2u);
  const auto& plain = outcome.sweep.runs[0].parsed.spec;
  EXPECT_EQ(plain.name(), "plain");
  EXPECT_EQ(plain.model().path(), "/w/m");
  EXPECT_EQ(plain.attention().window().size(), 32);
  EXPECT_EQ(plain.finetune().clip_norm(), 0.5);
  const auto& dropped = outcome.sweep.runs[1].parsed.spec;
  EXPECT_EQ(dropped.attention().window().size(), 64);
  EXPECT_EQ(dropped.attention().window().sinks(), 2) << "what the run does not name stays";
  EXPECT_EQ(dropped.finetune().steps(), 10);
  EXPECT_EQ(dropped.finetune().learning_rate(), 2e-3);
  EXPECT_FALSE(dropped.finetune().has_clip_norm()) << "null takes the base's value away";
  EXPECT_EQ(dropped.finetune().ssd().schedule_size(), 2);
  EXPECT_FALSE(outcome.sweep.control.has_value());
}

TEST(ReadSweep, AFaultOfTheBaseIsToldOnceAndARunsFaultNamesTheRun) {
  std::string text = kSweep;
  text.replace(text.find("sequence_length"), 15, "sequence_lenght");
  text.replace(text.find("[0.9, 0.1]"), 10, "[0.9, 1.1]");
  const auto faults = ReadSweep(text, "/w").violations;
  ASSERT_EQ(faults.size(), 2u);
  EXPECT_EQ(faults[0].line, 3);
  EXPECT_EQ(faults[0].message,
            "data.sequence_lenght is not a field; did you mean data.sequence_length?");
  EXPECT_EQ(faults[1].line, 13);
  EXPECT_TRUE(faults[1].message.starts_with("run dropped: finetune.ssd.schedule"))
      << faults[1].message;
}

TEST(ReadSweep, TheTrainedControlIsTheBaseWithTheWindowAlone) {
  std::string text = std::string(kSweep) + "controls: trained\n";
  text.insert(text.find("  finetune: {steps"), "  attention_transfer: {steps: 5}\n");
  const auto outcome = ReadSweep(text, "/w");
  ASSERT_EQ(Messages(outcome), "");
  ASSERT_TRUE(outcome.sweep.control.has_value());
  const auto& control = outcome.sweep.control->parsed.spec;
  EXPECT_EQ(control.recipe(), "window_control");
  EXPECT_EQ(control.name(), "window-control");
  EXPECT_FALSE(control.has_attention_transfer());
  EXPECT_EQ(control.finetune().steps(), 15) << "as long as both stages of the others";
  EXPECT_EQ(control.attention().window().size(), 32);
}

TEST(ReadSweep, RefusesWhatIsNoSweep) {
  EXPECT_EQ(
      Messages(ReadSweep("model: {path: m}\n", "/w")),
      "s.yaml:1: model is not a field of a sweep file; it has base, runs and controls; fields "
      "of jobs go below base\n"
      "s.yaml:1: base is missing; it holds the fields that all runs share\n"
      "s.yaml:1: runs is missing; list what is to be compared: runs: [{name: a}]\n");
  const std::string head = "base: {model: {path: m}, data: {train: [a.txt]}, recipe: ssd}\n";
  EXPECT_EQ(Messages(ReadSweep(head + "run: [{name: a}]\n", "/w")).find("did you mean runs?") !=
                std::string::npos,
            true);
  EXPECT_EQ(Messages(ReadSweep(head + "runs: [{name: a}, {seed: 1}]\n", "/w")),
            "s.yaml:2: this run has no name; each has one of its own\n");
  EXPECT_EQ(Messages(ReadSweep(head + "runs:\n- name: a\n- name: a\n", "/w")),
            "s.yaml:4: run a is listed twice (line 3); give each its own name\n");
  EXPECT_EQ(Messages(ReadSweep(head + "runs: [{name: a}]\ncontrols: some\n", "/w")),
            "s.yaml:3: controls is \"some\"; must be none or trained\n");
  EXPECT_EQ(Messages(ReadSweep(head + "runs: []\n", "/w")),
            "s.yaml:2: runs must be a list of groups of fields, each with a name\n");
}

TEST(MergedFaults, SeveralRunsShareALine) {
  const auto merged = MergedFaults({{"a", {{"f", "f is bad", 3}}},
                                    {"b", {{"f", "f is bad", 3}, {"g", "g is bad", 2}}},
                                    {"c", {}}});
  ASSERT_EQ(merged.size(), 2u);
  EXPECT_EQ(merged[0].message, "run b: g is bad");
  EXPECT_EQ(merged[1].message, "runs a, b: f is bad");
}

}  // namespace
}  // namespace tandem::cli
