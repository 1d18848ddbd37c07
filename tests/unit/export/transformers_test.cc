// The promise of an export: transformers loads it and computes the same logits, greedy decoding
// with the cache included.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "tests/unit/export/tiny_export.h"

namespace tandem {
namespace {

int CheckExport(const std::string& python, TinyExport& job) {
  const std::string command = "cd " + job.Artifact("") + " && PYTHONPATH=" + TANDEM_SOURCE_DIR +
                              "/python HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 " + python +
                              " -m tandem.check_export model --expected check.safetensors 2>&1";
  return std::system(command.c_str());
}

class TransformersTest : public testing::TestWithParam<const char*> {};

TEST_P(TransformersTest, LoadsAndGivesTheSameLogits) {
  const std::string python = std::string(TANDEM_SOURCE_DIR) + "/.venv-tests/bin/python";
  if (!PathExists(python)) GTEST_SKIP() << python << " is not there; run tests/run.sh once";
  const std::string kind = GetParam();
  TinyExport job(kind != "untied");
  if (kind == "untied") job.plan().attention.window_sinks = 3;
  if (kind == "span_all") job.plan().attention.linear_span = "all";
  if (kind == "linear_only") {
    job.plan().stages.resize(1);
    job.plan().stages[0].kind = "finetune";
    job.plan().stages[0].mode = "linear_only";
  }
  const auto exported = job.Run(kind == "untied" ? 20'000 : 5'000'000'000);  // in shards, too
  ASSERT_TRUE(exported.ok()) << exported.status().ToString();
  ASSERT_EQ(CheckExport(python, job), 0);
  if (kind != "tied") return;
  // And the check sees a difference: another window, or a weight that is missing.
  const std::string config = job.Artifact("model/config.json");
  std::string text = ReadFile(config).value();
  const size_t at = text.find("\"size\": 8");
  ASSERT_NE(at, std::string::npos);
  ASSERT_TRUE(WriteFileDurably(config, text.replace(at, 9, "\"size\": 7")).ok());
  EXPECT_NE(CheckExport(python, job), 0);
}

INSTANTIATE_TEST_SUITE_P(Kinds, TransformersTest,
                         testing::Values("tied", "untied", "span_all", "linear_only"),
                         [](const auto& kind) { return std::string(kind.param); });

}  // namespace
}  // namespace tandem
