// The evaluation forward's invariants on a tiny model; its numbers against PyTorch are in
// tests/unit/train/parity_test.cc.
#include "worker/model/evaluation_forward.h"

#include <ATen/Parallel.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/roll.h>
#include <gtest/gtest.h>

#include "tests/unit/train/tiny_model.h"

namespace tandem::testing {
namespace {

class EvaluationForward : public ::testing::Test {
 protected:
  EvaluationForward() {
    at::set_num_threads(1);
    Disturb(parameters_);
    options_.attention.window = 4;
  }

  at::Tensor Losses(ComponentMode mode) {
    options_.mode = mode;
    return EvaluateSequences(*model_, parameters_, ids_, options_).losses;
  }
  static double Distance(const at::Tensor& a, const at::Tensor& b) {
    return a.sub(b).abs().max().item<double>();
  }

  std::unique_ptr<Llama> model_ = TinyModel();
  Parameters parameters_{model_->config(), TinyParameterOptions()};
  at::Tensor ids_ = RandomIds(2, 24, 64, 5);
  EvaluationOptions options_;
};

constexpr ComponentMode kModes[] = {ComponentMode::kSoftmax,    ComponentMode::kHybrid,
                                    ComponentMode::kWindowOnly, ComponentMode::kLinearOnly,
                                    ComponentMode::kSinksOnly,  ComponentMode::kNone};

TEST_F(EvaluationForward, ModesDifferAndNamesGoBothWays) {
  for (const ComponentMode a : kModes) {
    EXPECT_EQ(ComponentModeFromName(ComponentModeName(a)).value(), a);
    for (const ComponentMode b : kModes) {
      if (a < b) {
        EXPECT_GT(Distance(Losses(a), Losses(b)), 1e-3);
      }
    }
  }
  EXPECT_FALSE(ComponentModeFromName("swa").ok());
}

TEST_F(EvaluationForward, LossesAndGuessesAreThoseOfTheLogits) {
  for (const ComponentMode mode : kModes) {
    options_.mode = mode;
    options_.predictions = true;
    const EvaluationResult result = EvaluateSequences(*model_, parameters_, ids_, options_);
    const at::Tensor logits = EvaluateLogits(*model_, parameters_, ids_, options_);
    const at::Tensor next = ids_.narrow(1, 1, 23).unsqueeze(-1);
    const at::Tensor wanted =
        logits.log_softmax(-1).narrow(1, 0, 23).gather(-1, next).squeeze(-1).neg();
    EXPECT_LT(Distance(result.losses, wanted), 1e-5) << ComponentModeName(mode);
    EXPECT_TRUE(result.predicted_BT.equal(logits.argmax(-1))) << ComponentModeName(mode);
  }
}

// A window over everything, without LoRA, is the base: the identity that a conversion starts from.
TEST_F(EvaluationForward, AWindowOverEverythingWithoutLoraIsTheBase) {
  const Parameters fresh(model_->config(), TinyParameterOptions());  // B = 0
  options_.attention.window = 24;
  for (const ComponentMode mode : {ComponentMode::kHybrid, ComponentMode::kWindowOnly}) {
    options_.mode = mode;
    const at::Tensor losses = EvaluateSequences(*model_, fresh, ids_, options_).losses;
    EXPECT_LT(Distance(losses, Losses(ComponentMode::kSoftmax)), 1e-4);
    options_.attention.window = 24;
  }
}

TEST_F(EvaluationForward, LaterTokensDoNotReachEarlierLosses) {
  at::Tensor changed = ids_.clone();
  changed.select(1, 23).add_(1).remainder_(64);
  for (const ComponentMode mode : kModes) {
    const at::Tensor before = Losses(mode);
    const at::Tensor after = EvaluateSequences(*model_, parameters_, changed, options_).losses;
    EXPECT_EQ(Distance(before.narrow(1, 0, 22), after.narrow(1, 0, 22)), 0.0);
    EXPECT_GT(Distance(before, after), 1e-3);
  }
}

TEST_F(EvaluationForward, LinearMassIsAShareAndNanWithoutRows) {
  options_.mode = ComponentMode::kHybrid;
  options_.linear_mass = true;
  options_.mass_from_row = 8;
  const EvaluationResult result = EvaluateSequences(*model_, parameters_, ids_, options_);
  EXPECT_EQ(result.linear_mass_MH.sizes(), (at::IntArrayRef{2, 4}));
  EXPECT_GT(result.linear_mass_MH.min().item<double>(), 0.0);
  EXPECT_LT(result.linear_mass_MH.max().item<double>(), 1.0);
  options_.linear_mass = false;
  EXPECT_LT(Distance(result.losses, Losses(ComponentMode::kHybrid)), 1e-5);
  options_.linear_mass = true;
  options_.mass_from_row = 24;
  const at::Tensor none = EvaluateSequences(*model_, parameters_, ids_, options_).linear_mass_MH;
  EXPECT_TRUE(none.isnan().all().item<bool>());
}

// Two equal sequences have nothing to swap; two different ones do, but only beyond the window.
TEST_F(EvaluationForward, StateSwapReadsTheOtherSequenceBeyondTheWindow) {
  options_.mode = ComponentMode::kHybrid;
  const at::Tensor plain = Losses(ComponentMode::kHybrid);
  options_.state_swap = true;
  const at::Tensor swapped = EvaluateSequences(*model_, parameters_, ids_, options_).losses;
  EXPECT_LT(Distance(plain.narrow(1, 0, 4), swapped.narrow(1, 0, 4)), 1e-5);
  EXPECT_GT(Distance(plain, swapped), 1e-3);
  const at::Tensor twins = ids_.narrow(0, 0, 1).repeat({2, 1});
  const at::Tensor same = EvaluateSequences(*model_, parameters_, twins, options_).losses;
  EXPECT_LT(Distance(same.select(0, 0), plain.select(0, 0)), 1e-5);
}

TEST_F(EvaluationForward, RefusesWhatHasNoMeaning) {
  options_.state_swap = true;
  EXPECT_THROW(Losses(ComponentMode::kWindowOnly), c10::Error);
  ids_ = ids_.narrow(0, 0, 1);
  EXPECT_THROW(Losses(ComponentMode::kHybrid), c10::Error);
  options_.state_swap = false;
  ids_ = ids_.narrow(1, 0, 1);
  EXPECT_THROW(Losses(ComponentMode::kHybrid), c10::Error);
}

}  // namespace
}  // namespace tandem::testing
