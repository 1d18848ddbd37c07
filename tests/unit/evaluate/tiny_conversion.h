// The fixture of what is measured: the tiny model with every trained tensor disturbed, a window of
// 8, and 40 documents of 33 tokens to read.
#pragma once

#include <gtest/gtest.h>

#include <memory>

#include "tests/unit/evaluate/tiny_model.h"
#include "tests/unit/model_files/folder.h"
#include "worker/data/token_shards.h"
#include "worker/evaluate/passes.h"

namespace tandem {

class TinyConversion : public testing::Test {
 protected:
  TinyConversion() { options_.feature_dim = 16; }
  void SetUp() override {
    ASSERT_TRUE(WriteTinyModel(folder_.File("model"), true).ok());
    ASSERT_TRUE(WriteTinyText(folder_.File("validation"), 40, 33).ok());
    model_ = Llama::Load(folder_.File("model")).value();
    text_ = TokenShard::Open(folder_.File("validation")).value();
    parameters_ = std::make_unique<Parameters>(model_->config(), options_);
    DisturbParameters(*parameters_);
    plan_.data.tokens = folder_.path();
    plan_.data.sequence_length = 32;
    plan_.attention.window_size = 8;
    plan_.attention.feature_dim = 16;
  }
  EvaluatedModel Model() const { return {*model_, *parameters_, *model_}; }

  TestFolder folder_;
  Plan plan_;
  ParameterOptions options_;  // a fixture that wants LoRA says so in its constructor
  std::unique_ptr<Llama> model_;
  std::unique_ptr<Parameters> parameters_;
  std::unique_ptr<TokenShard> text_;
};

}  // namespace tandem
