// What the tests of finetuning share: the tiny model with everything disturbed, options that train
// it whole, and a batch of three sequences.
#pragma once

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <memory>

#include "tests/unit/train/tiny_model.h"
#include "worker/train/finetune.h"

namespace tandem::testing {

class FinetuneFixture : public ::testing::Test {
 protected:
  FinetuneFixture() {
    at::set_num_threads(1);  // tiny products: threads would only wait for each other
    Disturb(parameters_);
  }

  static FinetuneOptions Options() {
    FinetuneOptions options;
    options.attention.window = 4;
    options.train_maps = true;
    options.train_factor = true;
    options.schedule = {1e-2, 0, 20, true};
    return options;
  }
  // No window is dropped.
  static bool Never(int64_t, int64_t) { return false; }
  // `gradients`: added to, if given.
  static double Loss(Finetune& stage, const StepBatch& batch, const Finetune::DropoutRule& rule,
                     GradientMap* gradients = nullptr) {
    GradientMap mine;
    return stage.LossAndGradients(batch, rule, gradients != nullptr ? *gradients : mine);
  }

  std::unique_ptr<Llama> model_ = TinyModel();
  Parameters parameters_{model_->config(), TinyParameterOptions()};
  std::unique_ptr<Collective> solo_ = MakeSoloCollective();
  StepBatch batch_{RandomIds(3, 20, 64, 1), 0};
};

}  // namespace tandem::testing
