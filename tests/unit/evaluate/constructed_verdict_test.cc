// The verdict on models whose answer is known (constructed_model.h), end to end through Evaluate.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "tests/unit/evaluate/constructed_model.h"
#include "tests/unit/model_files/folder.h"
#include "worker/evaluate/evaluate.h"

namespace tandem {
namespace {

class ConstructedVerdict : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(WriteTopicText(folder_.File("validation"), 32).ok());
    shard_ = TokenShard::Open(folder_.File("validation")).value();
    plan_.data.sequence_length = kTopicLength;
    plan_.attention.window_size = 4;
    plan_.attention.feature_dim = 16;
    plan_.evaluate.sequences = 32;
    plan_.evaluate.passkey = false;
    Make({});
  }

  // The base, and a conversion of it: identity maps, gamma = 0.5.
  void Make(const TopicModelOptions& options) {
    model_ = std::make_unique<Llama>(TopicConfig(), TopicWeights(options));
    ParameterOptions parameters;
    parameters.feature_dim = 16;
    parameters.mixing_initial = 0.5;
    parameters.lora.rank = 2;
    parameters.lora.targets = {"v_proj", "o_proj"};
    parameters_ = std::make_unique<Parameters>(model_->config(), parameters);
  }

  // gamma above 1, which only the factor exp can have.
  void MakeWithFactor(double gamma) {
    ParameterOptions parameters;
    parameters.feature_dim = 16;
    parameters.mixing_factor = "exp";
    parameters.mixing_initial = gamma;
    parameters_ = std::make_unique<Parameters>(model_->config(), parameters);
  }

  at::Tensor Parameter(const std::string& name) {
    return parameters_->tensors().at("layers.0." + name).detach();
  }

  Evaluation Run() {
    const auto solo = MakeSoloCollective();
    return Evaluate({plan_, *model_, *parameters_, *shard_}, *solo, nullptr).value();
  }

  // The figures behind a verdict, for a failure's message.
  static std::string Describe(const Evaluation& evaluation) {
    std::string text = evaluation.verdict.verdict + ": " + evaluation.verdict.reason;
    for (const auto& [mode, figures] : evaluation.components) {
      text += "\n" + mode + " " + std::to_string(figures.loss);
    }
    return text + "\nswap " + std::to_string(evaluation.verdict.state_swap_delta);
  }

  TestFolder folder_;
  Plan plan_;
  std::unique_ptr<Llama> model_;
  std::unique_ptr<Parameters> parameters_;
  std::unique_ptr<TokenShard> shard_;
};

// The construction itself: attention is worth about 0.3 ln 12 nats here.
TEST_F(ConstructedVerdict, TheBaseReadsTheTopic) {
  const Evaluation evaluation = Run();
  const double none = evaluation.components.at("none").loss;
  EXPECT_GT(none - evaluation.components.at("softmax").loss, 0.4) << Describe(evaluation);
  // The first 8 tokens say nothing.
  EXPECT_NEAR(evaluation.components.at("sinks_only").loss, none, 1e-3) << Describe(evaluation);
}

TEST_F(ConstructedVerdict, MapsThatReadTheMarkersAreBalanced) {
  const Evaluation evaluation = Run();
  EXPECT_EQ(evaluation.verdict.verdict, "balanced") << Describe(evaluation);
  EXPECT_GT(*evaluation.verdict.linear_capability, 0.9) << Describe(evaluation);
  EXPECT_GT(*evaluation.verdict.recovered.at("hybrid"), 0.9) << Describe(evaluation);
  EXPECT_EQ(evaluation.beats_window.value, std::nullopt);  // no trained control
  EXPECT_GT(evaluation.beats_window.training_free->low, 0.01) << evaluation.beats_window.words;
}

// Zero maps: every key alike, the branch is the mean value vector; gamma is large, so the window
// does the work and the hybrid looks as good as it.
TEST_F(ConstructedVerdict, MeanValueBranchIsCollapsed) {
  MakeWithFactor(30);
  Parameter("feature_map_q").zero_();
  Parameter("feature_map_k").zero_();
  const Evaluation evaluation = Run();
  EXPECT_EQ(evaluation.verdict.verdict, "collapsed") << Describe(evaluation);
  EXPECT_GT(*evaluation.verdict.recovered.at("hybrid"), 0.5) << Describe(evaluation);
}

// Reads the decoys: worse than no context at all.
TEST_F(ConstructedVerdict, MapsThatReadTheWrongKeysAreCollapsed) {
  Parameter("feature_map_k").neg_();
  const Evaluation evaluation = Run();
  EXPECT_EQ(evaluation.verdict.verdict, "collapsed") << Describe(evaluation);
  EXPECT_LT(*evaluation.verdict.linear_capability, 0.2) << Describe(evaluation);
}

// Able alone, but of weight 1e-5 in the mix: it gains a little in every sequence, and does no work.
TEST_F(ConstructedVerdict, CapableBranchThatIsNotUsedIsCollapsed) {
  MakeWithFactor(1e6);
  const Evaluation evaluation = Run();
  EXPECT_GT(*evaluation.verdict.linear_capability, 0.9) << Describe(evaluation);
  EXPECT_EQ(evaluation.verdict.verdict, "collapsed") << Describe(evaluation);
  EXPECT_NE(evaluation.verdict.reason.find("brings nothing"), std::string::npos)
      << Describe(evaluation);
  EXPECT_FALSE(*evaluation.beats_window.value);
}

// A window of one key sees a marker three times of ten: the linear branch does the work.
TEST_F(ConstructedVerdict, NarrowWindowLeansOnTheLinearBranch) {
  plan_.attention.window_size = 1;
  const Evaluation evaluation = Run();
  EXPECT_EQ(evaluation.verdict.verdict, "leaning") << Describe(evaluation);
  EXPECT_NE(evaluation.verdict.reason.find("leans on the linear branch"), std::string::npos)
      << Describe(evaluation);
}

TEST_F(ConstructedVerdict, NotANumberIsCollapsed) {
  Parameter("feature_map_k").fill_(std::nanf(""));
  EXPECT_EQ(Run().verdict.verdict, "collapsed");
  Parameter("o_proj.lora_A").fill_(std::nanf(""));
  const Evaluation evaluation = Run();
  EXPECT_EQ(evaluation.verdict.verdict, "collapsed");
  EXPECT_NE(evaluation.verdict.reason.find("not finite"), std::string::npos)
      << Describe(evaluation);
  EXPECT_NE(EvaluationToJson(plan_, evaluation).find("\"linear_capability\": null"),
            std::string::npos);
}

// A LoRA that votes for half of the topics whatever was read: all modes of the conversion are worse
// than no context.
TEST_F(ConstructedVerdict, WorseThanNoContextIsCollapsed) {
  Parameter("o_proj.lora_A").fill_(1);
  at::Tensor push = Parameter("o_proj.lora_B").narrow(0, kVote, kTopics);
  for (int64_t c = 0; c < kTopics; ++c) push.select(0, c).fill_(c % 2 == 0 ? 4 : -4);
  const Evaluation evaluation = Run();
  EXPECT_GT(evaluation.components.at("linear_only").loss,
            evaluation.components.at("none").loss + 0.1)
      << Describe(evaluation);
  EXPECT_EQ(evaluation.verdict.verdict, "collapsed") << Describe(evaluation);
}

// The same function in other units (queries against keys and maps, values against the output
// projection) has the same figures and verdict.
TEST_F(ConstructedVerdict, ScaleOfTheSameFunctionDoesNotMatter) {
  const Evaluation plain = Run();
  Make({.query_scale = 4, .value_scale = 0.25});
  Parameter("feature_map_q").mul_(0.25);
  Parameter("feature_map_k").mul_(4);
  const Evaluation scaled = Run();
  for (const auto& [mode, figures] : plain.components) {
    EXPECT_NEAR(scaled.components.at(mode).loss, figures.loss, 2e-5) << mode;
  }
  EXPECT_EQ(scaled.verdict.verdict, plain.verdict.verdict);
  EXPECT_NEAR(scaled.verdict.state_swap_delta, plain.verdict.state_swap_delta, 2e-5);
}

}  // namespace
}  // namespace tandem
