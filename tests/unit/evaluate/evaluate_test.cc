#include "worker/evaluate/evaluate.h"

#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "tests/unit/evaluate/tiny_model.h"
#include "tests/unit/model_files/folder.h"
#include "worker/evaluate/passkey.h"
#include "worker/model/evaluation_forward.h"

namespace tandem {
namespace {

// One of several ranks whose parts are gathered by hand: the first round records what each rank
// says, the second lets rank 0 see all of it. Evaluation only gathers, so a part never depends on
// another rank's.
class RecordedRank : public Collective {
 public:
  RecordedRank(int64_t rank, int64_t size, std::vector<std::vector<std::vector<double>>>* parts)
      : rank_(rank), size_(size), parts_(parts) {}
  int64_t rank() const override { return rank_; }
  int64_t size() const override { return size_; }
  void AllReduceSum(std::span<float>) override { FAIL(); }
  void AllReduceSum(std::span<double>) override { FAIL(); }
  std::vector<double> AllGather(std::span<const double> part) override {
    auto& calls = (*parts_)[static_cast<size_t>(rank_)];
    calls.emplace_back(part.begin(), part.end());
    const size_t call = calls.size() - 1;
    std::vector<double> all;
    for (int64_t rank = 0; rank < size_; ++rank) {
      const auto& others = (*parts_)[static_cast<size_t>(rank)];
      // A rank that has not spoken yet is heard as silence of the right length: its figures do not
      // matter to us.
      const std::vector<double>& said = call < others.size() ? others[call] : Silence(call);
      all.insert(all.end(), said.begin(), said.end());
    }
    return all;
  }
  std::string Broadcast(const std::string& text, int64_t) override { return text; }
  void Barrier() override {}
  int64_t Agree(int64_t) override { return 0; }
  void ExpectLengths(std::vector<size_t> lengths) { lengths_ = std::move(lengths); }

 private:
  const std::vector<double>& Silence(size_t call) {
    silence_.assign(lengths_.at(call), 0.0);
    return silence_;
  }
  int64_t rank_, size_;
  std::vector<std::vector<std::vector<double>>>* parts_;
  std::vector<size_t> lengths_;
  std::vector<double> silence_;
};

class EvaluateTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(WriteTinyModel(folder_.File("model"), true).ok());
    ASSERT_TRUE(WriteTinyText(folder_.File("validation"), 40, 33).ok());
    model_ = Llama::Load(folder_.File("model")).value();
    shard_ = TokenShard::Open(folder_.File("validation")).value();
    ParameterOptions options;
    options.feature_dim = 16;
    options.lora.rank = 4;
    options.lora.targets = {"q_proj", "k_proj", "v_proj", "o_proj"};
    parameters_ = std::make_unique<Parameters>(model_->config(), options);
    DisturbParameters(*parameters_);
    plan_.job_name = "tiny";
    plan_.job_uid = "u1";
    plan_.data.sequence_length = 512 / 16;
    plan_.attention.window_size = 8;
    plan_.attention.feature_dim = 16;
    plan_.evaluate.sequences = 33;  // the last group of 64 is not full
  }
  EvaluationInputs Inputs() { return {plan_, *model_, *parameters_, *shard_, prompts_}; }

  TestFolder folder_;
  Plan plan_;
  std::unique_ptr<Llama> model_;
  std::unique_ptr<Parameters> parameters_;
  std::unique_ptr<TokenShard> shard_;
  std::vector<PasskeyPrompt> prompts_;
};

TEST_F(EvaluateTest, FillsEveryFigure) {
  const auto solo = MakeSoloCollective();
  int64_t last = 0, total = 0;
  const auto evaluation = Evaluate(Inputs(), *solo, [&](int64_t done, int64_t of) {
    last = done;
    total = of;
  });
  ASSERT_TRUE(evaluation.ok()) << evaluation.status().ToString();
  EXPECT_EQ(last, total);
  EXPECT_EQ(evaluation->components.size(), 6u);
  for (const auto& [mode, figures] : evaluation->components) {
    EXPECT_GT(figures.loss, 0) << mode;
    EXPECT_GT(figures.standard_error, 0) << mode;
    EXPECT_DOUBLE_EQ(figures.perplexity, std::exp(figures.loss)) << mode;
  }
  EXPECT_LE(evaluation->linear_delta_low, evaluation->verdict.linear_delta);
  EXPECT_GE(evaluation->linear_delta_high, evaluation->verdict.linear_delta);
  EXPECT_EQ(evaluation->sequences, 33);
  ASSERT_EQ(evaluation->linear_mass.size(), 2u);
  for (const auto& heads : evaluation->linear_mass) {
    ASSERT_EQ(heads.size(), 4u);
    for (const double share : heads) EXPECT_TRUE(share > 0 && share < 1) << share;
  }
  // Rows 8 ... 30 of 31 have keys outside a window of 8.
  EXPECT_DOUBLE_EQ(evaluation->linear_active, 23.0 / 31);

  const auto json = nlohmann::json::parse(EvaluationToJson(plan_, *evaluation));
  EXPECT_EQ(json["uid"], "u1");
  EXPECT_EQ(json["components"]["hybrid"]["loss"], evaluation->components.at("hybrid").loss);
  EXPECT_EQ(json["thresholds"]["collapsed_below"], 0.55);
}

TEST_F(EvaluateTest, TellsTooLittleText) {
  plan_.data.sequence_length = 1000;
  const auto solo = MakeSoloCollective();
  const auto evaluation = Evaluate(Inputs(), *solo, nullptr);
  ASSERT_FALSE(evaluation.ok());
  EXPECT_NE(evaluation.status().message().find("has 1 sequences of 1000 tokens; at least 2"),
            std::string::npos)
      << evaluation.status().message();
}

// A window over the whole text leaves the linear branch nothing: hybrid and window_only are the
// same function.
TEST_F(EvaluateTest, WindowOverAllIsCollapsed) {
  plan_.attention.window_size = 64;
  const auto solo = MakeSoloCollective();
  const auto evaluation = Evaluate(Inputs(), *solo, nullptr);
  ASSERT_TRUE(evaluation.ok());
  EXPECT_NEAR(evaluation->verdict.linear_delta, 0, 1e-5);
  EXPECT_EQ(evaluation->verdict.verdict, "collapsed");
  EXPECT_TRUE(evaluation->linear_mass.empty());
  EXPECT_EQ(evaluation->linear_active, 0);
}

TEST_F(EvaluateTest, SplitOverRanksChangesNothing) {
  plan_.data.sequence_length = 256;  // groups of 8
  ASSERT_TRUE(WriteTinyText(folder_.File("long"), 40, 129).ok());
  shard_ = TokenShard::Open(folder_.File("long")).value();
  plan_.evaluate.sequences = 9;  // two groups: 8, and 1 with a partner
  const auto solo = MakeSoloCollective();
  const auto alone = Evaluate(Inputs(), *solo, nullptr);
  ASSERT_TRUE(alone.ok()) << alone.status().ToString();

  std::vector<std::vector<std::vector<double>>> parts(2);
  RecordedRank second(1, 2, &parts);
  // Rank 0 has the first group; its parts: per pass 8 losses, before those of the hybrid 8
  // masses.
  second.ExpectLengths({8, 8, 8, 8, 8, 8, 8, 8, 0, 0, 0, 0});
  ASSERT_TRUE(Evaluate(Inputs(), second, nullptr).ok());
  RecordedRank first(0, 2, &parts);
  const auto together = Evaluate(Inputs(), first, nullptr);
  ASSERT_TRUE(together.ok());
  for (const auto& [mode, figures] : alone->components) {
    EXPECT_EQ(figures.loss, together->components.at(mode).loss) << mode;
  }
  EXPECT_EQ(alone->linear_mass, together->linear_mass);
  EXPECT_EQ(alone->verdict.state_swap_delta, together->verdict.state_swap_delta);
}

TEST_F(EvaluateTest, PasskeyCountsWholeAnswersByDistance) {
  // Answers taken from the model's own guesses: right by construction in mode softmax; then one is
  // spoilt.
  at::Tensor ids = at::empty({1, 24}, at::kLong);
  shard_->Read(0, 24, ids.mutable_data_ptr<int64_t>());
  EvaluationOptions options;
  options.mode = ComponentMode::kSoftmax;
  options.predictions = true;
  PasskeyPrompt prompt;
  prompt.distance = 7;
  prompt.answer_start = 20;
  prompt.answer_length = 2;
  for (int step = 0; step < 2; ++step) {
    const at::Tensor guess = EvaluateSequences(*model_, *parameters_, ids, options).predicted_BT;
    ids.mutable_data_ptr<int64_t>()[20 + step] = guess.const_data_ptr<int64_t>()[19 + step];
  }
  const int64_t* values = ids.const_data_ptr<int64_t>();
  prompt.ids.assign(values, values + 24);
  prompts_.assign(5, prompt);
  prompts_[3].distance = 3;
  prompts_[4].ids[21] = (prompts_[4].ids[21] + 1) % kTinyVocab;  // the second token of the answer
  options.attention.window = 8;
  const auto solo = MakeSoloCollective();
  const auto figures = MeasurePasskey(Inputs(), options, *solo, [] {});
  ASSERT_EQ(figures.size(), 2u);
  EXPECT_EQ(figures[0].distance, 3);
  EXPECT_EQ(figures[0].accuracy.at("softmax"), 1);
  EXPECT_EQ(figures[1].prompts, 4);
  EXPECT_DOUBLE_EQ(figures[1].accuracy.at("softmax"), 0.75);
  EXPECT_EQ(figures[1].accuracy.size(), 4u);
}

}  // namespace
}  // namespace tandem
