#include "worker/export/export.h"

#include <ATen/ops/allclose.h>
#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <map>

#include "base/digest.h"
#include "tests/unit/export/tiny_export.h"
#include "worker/export/weights.h"
#include "worker/model/evaluation_forward.h"
#include "worker/model/safetensors.h"

namespace tandem {
namespace {

std::map<std::string, std::string> DigestsOf(const std::string& folder) {
  std::map<std::string, std::string> digests;
  const auto names = ListFolder(folder).value();
  for (const std::string& name : names) {
    digests[name] = Sha256OfFile(JoinPath(folder, name)).value();
  }
  return digests;
}

TEST(Export, MergesLoraAndKeepsTheMaps) {
  TinyExport job(true);
  const auto exported = job.Run();
  ASSERT_TRUE(exported.ok()) << exported.status().ToString();
  const auto files = SafetensorsModel::Open(exported->directory);
  ASSERT_TRUE(files.ok()) << files.status().ToString();
  EXPECT_EQ(files->Find("lm_head.weight"), nullptr);  // tied stays tied
  const TensorView* map = files->Find("model.layers.1.self_attn.feature_map_k.weight");
  ASSERT_NE(map, nullptr);
  EXPECT_EQ(map->dtype, "F32");
  EXPECT_EQ(map->shape, (std::vector<int64_t>{4, 16, 16}));
  EXPECT_NE(files->Find("model.layers.0.self_attn.window_factors"), nullptr);
  EXPECT_EQ(files->tensors().size(), 2u * (9 + 3) + 2);

  // y = W x + (alpha / r) B A x, element by element.
  const LoraPair& lora = job.parameters().layer(1).k;
  const at::Tensor base = job.model().Weight("model.layers.1.self_attn.k_proj.weight").contiguous();
  const TensorView* merged = files->Find("model.layers.1.self_attn.k_proj.weight");
  const auto* values = reinterpret_cast<const float*>(merged->data);
  double moved = 0;
  for (int64_t row = 0; row < base.size(0); ++row) {
    for (int64_t column = 0; column < base.size(1); ++column) {
      double sum = 0;
      for (int64_t r = 0; r < 4; ++r) {
        sum += static_cast<double>(lora.b.const_data_ptr<float>()[row * 4 + r]) *
               static_cast<double>(lora.a.const_data_ptr<float>()[r * base.size(1) + column]);
      }
      const int64_t at = row * base.size(1) + column;
      const double expected =
          static_cast<double>(base.const_data_ptr<float>()[at]) + 16.0 / 4 * sum;
      ASSERT_NEAR(values[at], expected, 1e-6 * (1 + std::abs(expected)));
      moved += std::abs(sum);
    }
  }
  EXPECT_GT(moved, 1);
}

TEST(Export, TwiceGivesTheSameBytesWhateverACrashLeft) {
  TinyExport job(false);
  const auto first = job.Run();
  ASSERT_TRUE(first.ok()) << first.status().ToString();
  const auto digests = DigestsOf(first->directory);
  const auto check = Sha256OfFile(job.Artifact("check.safetensors")).value();
  EXPECT_TRUE(digests.contains("manifest.json") && digests.contains("README.md"));
  // A crash before the last rename, and one between the two renames.
  ASSERT_TRUE(MakeFolders(job.Artifact(".model-123")).ok());
  ASSERT_TRUE(WriteFileDurably(job.Artifact(".model-123/config.json"), "{").ok());
  ASSERT_TRUE(RenameDurably(first->directory, job.Artifact(".model-old")).ok());
  const auto second = job.Run();
  ASSERT_TRUE(second.ok()) << second.status().ToString();
  EXPECT_EQ(DigestsOf(second->directory), digests);
  EXPECT_EQ(Sha256OfFile(job.Artifact("check.safetensors")).value(), check);
  EXPECT_EQ(second->manifest_sha256, first->manifest_sha256);
  const auto third = job.Run();  // over a whole one
  ASSERT_TRUE(third.ok());
  EXPECT_EQ(DigestsOf(third->directory), digests);
  EXPECT_EQ(*ListFolder(job.Artifact("")),
            (std::vector<std::string>{"check.safetensors", "model"}));
}

TEST(Export, ShardsHoldTheSameTensors) {
  TinyExport job(false);
  const auto whole = job.Run();
  ASSERT_TRUE(whole.ok());
  std::map<std::string, std::string> bytes;
  const auto read = [&bytes](const std::string& directory) {
    const auto files = SafetensorsModel::Open(directory);
    EXPECT_TRUE(files.ok()) << files.status().ToString();
    std::map<std::string, std::string> out;
    for (const auto& [name, view] : files->tensors()) {
      out[name] =
          Sha256Hex({reinterpret_cast<const char*>(view.data), static_cast<size_t>(view.bytes)});
    }
    return out;
  };
  bytes = read(whole->directory);
  const auto sharded = job.Run(20'000);
  ASSERT_TRUE(sharded.ok()) << sharded.status().ToString();
  EXPECT_TRUE(PathExists(JoinPath(sharded->directory, "model.safetensors.index.json")));
  EXPECT_FALSE(PathExists(JoinPath(sharded->directory, "model.safetensors")));
  EXPECT_EQ(read(sharded->directory), bytes);
}

TEST(Export, Bfloat16RoundsTheWeightsAndNotTheMaps) {
  TinyExport job(true, "bfloat16");
  const auto exported = job.Run();
  ASSERT_TRUE(exported.ok()) << exported.status().ToString();
  const auto files = SafetensorsModel::Open(exported->directory);
  ASSERT_TRUE(files.ok());
  EXPECT_EQ(files->Find("model.layers.0.mlp.up_proj.weight")->dtype, "BF16");
  EXPECT_EQ(files->Find("model.layers.0.self_attn.feature_map_q.weight")->dtype, "F32");
}

TEST(Export, CheckLogitsAreThoseOfTheTrainedModel) {
  TinyExport job(true);
  ASSERT_TRUE(job.Run().ok());
  const auto check = SafetensorsFile::Open(job.Artifact("check.safetensors"));
  ASSERT_TRUE(check.ok());
  const TensorView* ids = (*check)->Find("ids");
  const TensorView* logits = (*check)->Find("logits");
  ASSERT_TRUE(ids != nullptr && logits != nullptr);
  EXPECT_EQ(ids->shape, (std::vector<int64_t>{1, 96}));
  EXPECT_EQ(logits->shape, (std::vector<int64_t>{1, 96, kTinyVocab}));
  const at::Tensor id_tensor = at::empty({1, 96}, at::kLong);
  std::memcpy(id_tensor.data_ptr(), ids->data, static_cast<size_t>(ids->bytes));
  const at::Tensor written = at::empty({1, 96, kTinyVocab}, at::kFloat);
  std::memcpy(written.data_ptr(), logits->data, static_cast<size_t>(logits->bytes));
  EvaluationOptions options;
  options.attention.window = 8;
  const at::Tensor trained = EvaluateLogits(job.model(), job.parameters(), id_tensor, options);
  EXPECT_TRUE(at::allclose(written, trained, 0, 1e-4));
  // And the check can fail: another window gives other logits.
  options.attention.window = 9;
  const at::Tensor other = EvaluateLogits(job.model(), job.parameters(), id_tensor, options);
  EXPECT_FALSE(at::allclose(written, other, 0, 1e-4));
}

TEST(Export, SaysWhatIsMissing) {
  TinyExport job(true);
  job.plan().export_classes = "";
  const auto exported = job.Run();
  ASSERT_FALSE(exported.ok());
  EXPECT_NE(exported.status().message().find("export_classes"), std::string::npos);
  EXPECT_FALSE(PathExists(job.Artifact("model")));
}

}  // namespace
}  // namespace tandem
