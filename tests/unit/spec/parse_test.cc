// Bad job files: each kind gives exactly these lines.
#include <gtest/gtest.h>

#include <ostream>

#include "spec/spec.h"

namespace tandem {
namespace {

struct BadFile {
  const char* name;
  const char* yaml;
  const char* errors;
};
void PrintTo(const BadFile& bad, std::ostream* out) {
  *out << bad.name;
}

// A valid job of five lines; the cases add what is wrong from line 6 on.
#define JOB "model:\n  path: m\ndata:\n  train: [a.txt]\nrecipe: ssd\n"

const BadFile kBadFiles[] = {
#include "tests/unit/spec/bad_files.inc"
};

class BadFileTest : public testing::TestWithParam<BadFile> {};

TEST_P(BadFileTest, IsRefusedInTheseWords) {
  const auto outcome = ReadSpec(GetParam().yaml, "/base");
  EXPECT_EQ(ViolationsToText(outcome.violations), GetParam().errors) << GetParam().yaml;
}

INSTANTIATE_TEST_SUITE_P(All, BadFileTest, testing::ValuesIn(kBadFiles),
                         [](const auto& test) { return std::string(test.param.name); });

// A second, unrelated fault in the same file is told as well.
TEST(BadFiles, TheSecondFaultIsSaidToo) {
  const std::string good = "train: [a.txt]";
  int files = 0;
  for (const auto& bad : kBadFiles) {
    std::string yaml = bad.yaml;
    const bool is_yaml = std::string(bad.errors).find("not valid YAML") == std::string::npos;
    if (!yaml.starts_with(JOB) || !is_yaml) continue;
    yaml.replace(yaml.find(good), good.size(), "train: [a.pdf]");
    const std::string text = ViolationsToText(ReadSpec(yaml, "/base").violations);
    EXPECT_NE(text.find("line 4: data.train[0] is \"/base/a.pdf\""), std::string::npos)
        << bad.name << "\n"
        << text;
    EXPECT_NE(text.find(bad.errors), std::string::npos) << bad.name << "\n" << text;
    ++files;
  }
  EXPECT_GT(files, 60);
}

TEST(ReadSpec, TakesWhatIsGoodWithLines) {
  const auto outcome = ReadSpec(JOB "seed: 7\nattention:\n  window: {size: 32}\n", "/base");
  EXPECT_EQ(ViolationsToText(outcome.violations), "");
  const auto& spec = outcome.parsed.spec;
  EXPECT_EQ(spec.model().path(), "/base/m");
  EXPECT_EQ(spec.data().train(0), "/base/a.txt");
  EXPECT_EQ(spec.seed(), 7u);
  EXPECT_EQ(spec.attention().window().size(), 32);
  EXPECT_FALSE(spec.attention().window().has_kind());
  EXPECT_EQ(outcome.parsed.lines.at("data.train[0]"), 4);
  EXPECT_EQ(outcome.parsed.lines.at("attention.window.size"), 8);
}

TEST(ReadSpec, KeepsAbsolutePathsAndTidiesRelativeOnes) {
  const auto outcome = ReadSpec(
      "model: {path: /abs/m}\ndata: {train: [../t/./a.jsonl.xz]}\nrecipe: lolcats\n", "/base/x");
  EXPECT_EQ(ViolationsToText(outcome.violations), "");
  EXPECT_EQ(outcome.parsed.spec.model().path(), "/abs/m");
  EXPECT_EQ(outcome.parsed.spec.data().train(0), "/base/t/a.jsonl.xz");
}

TEST(ReadSpec, TakesStages) {
  const auto outcome = ReadSpec(
      "model: {path: m}\ndata: {train: [a.txt]}\nstages:\n"
      "  - attention_transfer: {steps: 3}\n  - finetune: {mode: linear_only}\n  - finetune: {}\n",
      "/base");
  EXPECT_EQ(ViolationsToText(outcome.violations), "");
  ASSERT_EQ(outcome.parsed.spec.stages_size(), 3);
  EXPECT_EQ(outcome.parsed.spec.stages(1).finetune().mode(), "linear_only");
  EXPECT_TRUE(outcome.parsed.spec.stages(2).has_finetune());
}

TEST(ReadSpec, RefusesHugeTexts) {
  const auto outcome = ReadSpec(std::string(kMaxSpecBytes + 1, ' '), "/base");
  EXPECT_EQ(ViolationsToText(outcome.violations),
            "the job file has 1048577 bytes; at most 1048576 are read\n");
}

// Specs that clients made without YAML: no lines, relative paths refused.
TEST(Validate, TakesClientMadeSpecs) {
  v1::JobSpec spec;
  spec.mutable_model()->set_path("relative/model");
  spec.mutable_data()->add_train("");
  spec.set_recipe("ssd");
  spec.set_name("Ünfit");
  spec.add_stages();
  spec.mutable_parallelism()->set_data(0);
  EXPECT_EQ(ViolationsToText(Validate(spec)),
            "name is \"Ünfit\"; must be 1 to 63 lower-case letters, digits and '-', a letter first "
            "and no '-' last\n"
            "model.path is \"relative/model\"; must be an absolute path (only in a job file may it "
            "be relative)\n"
            "data.train[0] is empty; give it a value\n"
            "parallelism.data is 0; must be in [1, 64]; delete it to take the default, 1\n"
            "stages stands beside recipe; keep one of the two\n"
            "stages[0] names no stage; write `attention_transfer: {}` or `finetune: {}`\n");
}

}  // namespace
}  // namespace tandem
