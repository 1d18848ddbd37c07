#include "worker/evaluate/evaluate.h"

#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/unit/evaluate/thread_ranks.h"
#include "tests/unit/evaluate/tiny_conversion.h"
#include "worker/model/evaluation_forward.h"

namespace tandem {
namespace {

class EvaluateTest : public TinyConversion {
 protected:
  EvaluateTest() {
    options_.lora.rank = 4;
    options_.lora.targets = {"q_proj", "k_proj", "v_proj", "o_proj"};
    plan_.job_name = "tiny";
    plan_.job_uid = "u1";
    plan_.evaluate.sequences = 33;  // the last group of 64 is not full
  }
  EvaluationInputs Inputs() { return {plan_, *model_, *parameters_, *text_}; }
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

// Everything at once: prompts, suites, other lengths, a label mask.
void WriteRequests(const TestFolder& folder) {
  std::vector<std::vector<uint16_t>> requests;
  nlohmann::json items = nlohmann::json::array(), prompts = nlohmann::json::array();
  const PhiloxStream stream(4, 0, RandomPurpose::kTest);
  for (int64_t i = 0; i < 12; ++i) {
    const int64_t length = 6 + 11 * i % 40;
    std::vector<uint16_t> ids;
    for (int64_t t = 0; t < length; ++t) {
      ids.push_back(static_cast<uint16_t>(stream.Below(kTinyVocab, i, t)));
    }
    prompts.push_back({{"kind", "recall"},
                       {"ids", ids},
                       {"facts", 2},
                       {"answers",
                        {{{"start", 3}, {"length", 1}, {"distance", 30}},
                         {{"start", 4}, {"length", 2}, {"distance", 3}}}}});
    requests.push_back(ids);
    if (i % 2 == 1) {
      items.push_back({{"first", i - 1}, {"starts", {2, 3}}, {"lengths", {4, 9}}, {"answer", 1}});
    }
  }
  const nlohmann::json suites = {
      {"version", 1},
      {"bos", "none"},
      {"suites", {{{"name", "tiny"}, {"metric", "acc_norm"}, {"items", items}}}}};
  ASSERT_TRUE(WriteShard(folder.File("suites"), MakeShard(requests)).ok());
  ASSERT_TRUE(WriteFileDurably(folder.File("suites.json"), suites.dump()).ok());
  ASSERT_TRUE(WriteFileDurably(folder.File("long_range.json"),
                               nlohmann::json{{"version", 1}, {"prompts", prompts}}.dump())
                  .ok());
}

TEST_F(EvaluateTest, SplitOverRanksChangesNothing) {
  plan_.data.sequence_length = 256;  // groups of 8
  ASSERT_TRUE(WriteTinyText(folder_.File("long"), 40, 129).ok());
  text_ = TokenShard::Open(folder_.File("long")).value();
  plan_.evaluate.sequences = 9;  // two groups: 8, and 1 with a partner
  plan_.evaluate.lengths = {64, 500, 100'000};
  plan_.evaluate.suites = plan_.evaluate.long_range = true;
  plan_.evaluate.suite_modes = {"softmax", "hybrid"};
  WriteRequests(folder_);
  const auto solo = MakeSoloCollective();
  Evaluation alone = Evaluate(Inputs(), *solo, nullptr).value();
  ASSERT_EQ(alone.suites.size(), 1u);
  ASSERT_EQ(alone.long_range.rows.size(), 1u);
  EXPECT_EQ(alone.long_range.rows[0].prompts, 12);
  EXPECT_EQ(alone.long_range.rows[0].length, 43);
  ASSERT_EQ(alone.lengths.size(), 3u);
  EXPECT_EQ(alone.lengths[0].sequences, 36);  // as many tokens as 9 of 256
  EXPECT_EQ(alone.lengths[2].sequences, 0);
  EXPECT_TRUE(alone.lengths[2].losses.empty());
  // Times and memory are the machine's.
  const auto without_cost = [this](Evaluation evaluation) {
    evaluation.cost = {};
    evaluation.seconds = 0;
    return EvaluationToJson(plan_, evaluation);
  };
  OnRanks(3, [&](Collective& collective) {
    int64_t last = 0, total = 0;
    const auto together = Evaluate(Inputs(), collective, [&](int64_t done, int64_t of) {
      last = done;
      total = of;
    });
    ASSERT_TRUE(together.ok());
    EXPECT_EQ(last, total);
    EXPECT_EQ(without_cost(*together), without_cost(alone)) << "rank " << collective.rank();
  });
}

// Instruction data: prompts are no targets, and a chunk of prompt alone is not read.
TEST_F(EvaluateTest, MaskedTargetsAreNotScored) {
  std::vector<std::vector<uint16_t>> masks;
  const int64_t T = plan_.data.sequence_length;
  for (int64_t i = 0; i < text_->num_documents(); ++i) {
    masks.emplace_back();
    for (int64_t t = text_->DocumentBegin(i); t < text_->DocumentBegin(i + 1); ++t) {
      // The last tokens of odd chunks: 12, 1, 1, 12, 1, 1, ...
      const int64_t labels = (t / T) % 6 == 1 ? 12 : 1;
      const bool is_labelled = (t / T) % 2 == 1 && t % T >= T - labels;
      masks[static_cast<size_t>(i)].push_back(is_labelled ? 1 : 0);
    }
  }
  ASSERT_TRUE(WriteShard(folder_.File("validation.mask"), MakeShard(masks)).ok());
  plan_.evaluate.sequences = 1000;
  const auto solo = MakeSoloCollective();
  const Evaluation evaluation = Evaluate(Inputs(), *solo, nullptr).value();
  EXPECT_EQ(evaluation.sequences, text_->NumChunks(T) / 2);
  EXPECT_EQ(evaluation.linear_active, 1);
  double sum = 0, tokens = 0;
  EvaluationOptions options = OptionsOf(plan_);
  options.mode = ComponentMode::kSoftmax;
  for (int64_t sequence = 0; sequence < evaluation.sequences; ++sequence) {
    at::Tensor ids = at::empty({1, T}, at::kLong);
    text_->ReadChunk(2 * sequence + 1, T, ids.mutable_data_ptr<int64_t>());
    const EvaluationResult result = EvaluateSequences(*model_, *parameters_, ids, options);
    const int64_t labels = sequence % 3 == 0 ? 12 : 1;
    sum += result.losses.narrow(1, T - 1 - labels, labels).sum().item<double>();
    tokens += static_cast<double>(labels);
    EXPECT_EQ(evaluation.losses.targets.at(static_cast<size_t>(sequence)),
              static_cast<double>(labels));
  }
  const ComponentFigures& base = evaluation.components.at("softmax");
  EXPECT_NEAR(base.loss, sum / tokens, 1e-5) << "every label counts once";
  double mean_of_means = 0;
  for (const double loss : evaluation.losses.per_sequence.at("softmax")) mean_of_means += loss;
  mean_of_means /= static_cast<double>(evaluation.sequences);
  EXPECT_GT(std::abs(base.loss - mean_of_means), 1e-3) << "the case must tell the two apart";

  masks[0].pop_back();  // a mask of another text
  ASSERT_TRUE(WriteShard(folder_.File("validation.mask"), MakeShard(masks)).ok());
  const auto refused = Evaluate(Inputs(), *solo, nullptr);
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.status().message().find("prepare again"), std::string::npos);
}

// The control without training is the base behind a window and 4 sinks, whatever was trained; and
// the base may be another model than the one that is judged.
TEST_F(EvaluateTest, TheTrainingFreeWindowIsTheBases) {
  const auto solo = MakeSoloCollective();
  const Evaluation evaluation = Evaluate(Inputs(), *solo, nullptr).value();
  ParameterOptions no_lora;
  no_lora.feature_dim = 16;
  const Parameters plain(model_->config(), no_lora);
  plan_.attention.window_sinks = kTrainingFreeSinks;
  const Evaluation base = Evaluate({plan_, *model_, plain, *text_}, *solo, nullptr).value();
  EXPECT_EQ(evaluation.losses.per_sequence.at("training_free"),
            base.losses.per_sequence.at("window_only"));
  EXPECT_NE(evaluation.losses.per_sequence.at("training_free"),
            evaluation.losses.per_sequence.at("window_only"));

  ASSERT_TRUE(WriteTinyModel(folder_.File("other"), false).ok());
  const auto other = Llama::Load(folder_.File("other")).value();
  plan_.attention.window_sinks = 0;
  EvaluationInputs inputs = Inputs();
  inputs.reference = other.get();
  const Evaluation against = Evaluate(inputs, *solo, nullptr).value();
  EXPECT_EQ(against.losses.per_sequence.at("hybrid"), evaluation.losses.per_sequence.at("hybrid"));
  EXPECT_NE(against.losses.per_sequence.at("softmax"),
            evaluation.losses.per_sequence.at("softmax"));
  EXPECT_NE(against.losses.per_sequence.at("training_free"),
            evaluation.losses.per_sequence.at("training_free"));
}

TEST_F(EvaluateTest, TheReportHoldsWhatTrainingSays) {
  const auto solo = MakeSoloCollective();
  EvaluationInputs inputs = Inputs();
  inputs.notes = {{"early_stop", R"({"step": 100})"}, {"broken", "{"}};
  plan_.attention.retained = {{1, 0}};
  plan_.recipe = "hedgecats";
  const Evaluation evaluation = Evaluate(inputs, *solo, nullptr).value();
  const auto json = nlohmann::json::parse(EvaluationToJson(plan_, evaluation));
  EXPECT_EQ(json["early_stop"]["step"], 100);
  EXPECT_TRUE(json["broken"].is_null());
  EXPECT_EQ(json["retained"], nlohmann::json::parse("[[1, 0]]"));
  EXPECT_EQ(json["recipe"], "hedgecats");
  EXPECT_EQ(json["served_mode"], "hybrid");
  EXPECT_EQ(json["per_sequence"]["hybrid"].size(), 33u);
  EXPECT_NEAR(json["per_sequence"]["hybrid"][2].get<double>(),
              evaluation.losses.per_sequence.at("hybrid")[2], 1e-6);
  EXPECT_GT(json["cost"]["peak_memory_bytes"].get<double>(), 1e6);
  EXPECT_TRUE(json["beats_window"]["trained"].is_null());
  EXPECT_FALSE(json.contains("suites"));
  EXPECT_FALSE(json.contains("lengths"));
}

}  // namespace
}  // namespace tandem
