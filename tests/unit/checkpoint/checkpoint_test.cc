#include "worker/checkpoint/checkpoint.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include "base/files.h"
#include "tests/unit/checkpoint/saved_state.h"
#include "tests/unit/model_files/folder.h"

namespace tandem {
namespace {

at::Tensor Numbered(at::IntArrayRef shape, float from) {
  at::Tensor tensor = at::full(shape, 0.0, at::kFloat);
  float* values = tensor.mutable_data_ptr<float>();
  for (int64_t i = 0; i < tensor.numel(); ++i) values[i] = from + static_cast<float>(i) / 3;
  return tensor;
}

NamedTensors State() {
  return {{"layers.0.feature_map_q", Numbered({2, 3, 4}, 0)},
          {"layers.0.window_factor", Numbered({2}, -2)},
          {"adam.m.layers.0.window_factor", Numbered({4, 3}, 5).t()},  // not contiguous
          {"adam.step", at::full({}, 17, at::kLong)},
          {"double", at::full({3}, 1e-300, at::kDouble)},
          {"empty", at::full({0, 4}, 0, at::kFloat)}};
}

TEST(Checkpoint, RoundTripsBitwise) {
  TestFolder job;
  const NamedTensors state = State();
  const auto saved = SaveCheckpoint(TargetIn(job.path(), 1), CursorAt(5), state);
  ASSERT_TRUE(saved.ok()) << saved.status().ToString();
  const auto loaded = LoadCheckpoint(saved->folder);
  ASSERT_TRUE(loaded.ok()) << loaded.status().ToString();
  EXPECT_EQ(loaded->manifest.global_step, 5);
  ASSERT_EQ(loaded->tensors.size(), state.size());
  NamedTensors into;
  for (const auto& [name, tensor] : state) {
    EXPECT_TRUE(at::equal(loaded->tensors.at(name), tensor)) << name;
    into[name] = at::zeros_like(tensor);
  }
  ASSERT_TRUE(RestoreTensors(loaded->tensors, into).ok());
  for (const auto& [name, tensor] : state) EXPECT_TRUE(at::equal(into.at(name), tensor)) << name;
}

TEST(Checkpoint, NamesEverythingThatDoesNotFit) {
  const NamedTensors loaded = State();
  NamedTensors into = State();
  into.erase("double");
  into["new"] = Numbered({1}, 0);
  into["adam.step"] = at::full({1}, 0, at::kLong);
  const Status status = RestoreTensors(loaded, into);
  ASSERT_EQ(status.code(), Code::kFailedPrecondition);
  for (const char* part :
       {"has no 'new'", "'adam.step' is I64 [] in the checkpoint; I64 [1]", "holds 'double'"}) {
    EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
  }
}

TEST(Checkpoint, FindsAFlippedBit) {
  TestFolder job;
  const auto saved = SaveCheckpoint(TargetIn(job.path(), 1), CursorAt(5), State());
  ASSERT_TRUE(saved.ok());
  const std::string shard = saved->folder + "/shard-0.safetensors";
  const std::string bytes = *ReadFile(shard);
  for (size_t i = 0; i < bytes.size(); i += 37) {
    std::string damaged = bytes;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x40);
    ASSERT_TRUE(WriteFileDurably(shard, damaged).ok());
    EXPECT_EQ(LoadCheckpoint(saved->folder).status().code(), Code::kDataLoss) << i;
  }
}

}  // namespace
}  // namespace tandem
