#include "worker/evaluate/request_scores.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/log_softmax.h>
#include <gtest/gtest.h>

#include "tests/unit/evaluate/thread_ranks.h"
#include "tests/unit/evaluate/tiny_conversion.h"

namespace tandem {
namespace {

class RequestScoresTest : public TinyConversion {
 protected:
  RequestScoresTest() {
    // Lengths 2 ... 201, spans of 1 ... 5 tokens; every seventh has a second span.
    for (int64_t i = 0; i < 70; ++i) {
      const int64_t length = 2 + (i * 37) % 200, span = std::min<int64_t>(1 + i % 5, length - 1);
      Request request{length, {{length - span, span}}};
      if (i % 7 == 0) request.spans.push_back({1, 1});
      requests_.push_back(request);
    }
  }
  static void ReadIds(int64_t request, int64_t length, int64_t* ids) {
    const PhiloxStream stream(8, request, RandomPurpose::kTest);
    for (int64_t t = 0; t < length; ++t) ids[t] = stream.Below(kTinyVocab, t);
  }
  RequestBatches Batches() const {
    return {requests_, [this](int64_t request, int64_t* ids) {
              ReadIds(request, requests_[static_cast<size_t>(request)].length, ids);
            }};
  }
  void ExpectEachAlone(ComponentMode mode) const {
    const auto solo = MakeSoloCollective();
    EvaluationOptions options = OptionsOf(plan_);
    options.mode = mode;
    const auto scores = Batches().Score(Model(), options, *solo, [] {});
    size_t at = 0;
    for (size_t i = 0; i < requests_.size(); ++i) {
      const int64_t length = requests_[i].length;
      at::Tensor ids = at::empty({1, length}, at::kLong);
      ReadIds(static_cast<int64_t>(i), requests_[i].length, ids.mutable_data_ptr<int64_t>());
      const at::Tensor read = ids.narrow(1, 0, std::max<int64_t>(2, length - 1)).contiguous();
      const at::Tensor logits = EvaluateLogits(*model_, *parameters_, read, options)[0];
      const at::Tensor log_p = at::log_softmax(logits.to(at::kDouble), 1).contiguous();
      const at::Tensor best = logits.argmax(1).contiguous();
      const int64_t* truth = ids.const_data_ptr<int64_t>();
      for (const ScoredSpan& span : requests_[i].spans) {
        double sum = 0;
        bool is_greedy = true;
        for (int64_t t = span.start; t < span.start + span.length; ++t) {
          sum += log_p.const_data_ptr<double>()[(t - 1) * kTinyVocab + truth[t]];
          is_greedy = is_greedy && best.const_data_ptr<int64_t>()[t - 1] == truth[t];
        }
        const std::string where = std::string(ComponentModeName(mode)) + " request " +
                                  std::to_string(i) + " of " + std::to_string(requests_[i].length) +
                                  " tokens";
        EXPECT_NEAR(scores.at(at).log_probability, sum, 2e-4) << where;
        EXPECT_EQ(scores.at(at).is_greedy, is_greedy) << where;
        ++at;
      }
    }
    EXPECT_EQ(at, scores.size());
  }

  std::vector<Request> requests_;
};

// Neither the neighbours in a group nor the filling on the right may be seen: each request alone,
// with its whole logits, gives the same scores in every mode.
TEST_F(RequestScoresTest, EqualsEachRequestAlone) {
  for (const ComponentMode mode :
       {ComponentMode::kSoftmax, ComponentMode::kHybrid, ComponentMode::kWindowOnly,
        ComponentMode::kLinearOnly, ComponentMode::kSinksOnly, ComponentMode::kNone}) {
    ExpectEachAlone(mode);
  }
}

// Blocks from the end: filling on the right would move them, as would the last token.
TEST_F(RequestScoresTest, EqualsEachRequestAloneWhereTheLengthCounts) {
  plan_.attention.window_kind = "terraced";
  plan_.attention.window_align_end = true;
  plan_.attention.compat = "lolcats";
  for (const ComponentMode mode : {ComponentMode::kHybrid, ComponentMode::kWindowOnly}) {
    ExpectEachAlone(mode);
  }
}

TEST_F(RequestScoresTest, AnyNumberOfRanksGivesTheSameBits) {
  const auto solo = MakeSoloCollective();
  const EvaluationOptions options = OptionsOf(plan_);
  int64_t alone_groups = 0;
  const auto alone = Batches().Score(Model(), options, *solo, [&] { ++alone_groups; });
  EXPECT_EQ(alone_groups, Batches().GroupsOf(0, 1));
  EXPECT_GT(alone_groups, 3);
  OnRanks(3, [&](Collective& collective) {
    int64_t groups = 0;
    const auto scores = Batches().Score(Model(), options, collective, [&] { ++groups; });
    EXPECT_EQ(groups, Batches().GroupsOf(collective.rank(), 3));
    ASSERT_EQ(scores.size(), alone.size());
    for (size_t i = 0; i < scores.size(); ++i) {
      EXPECT_EQ(scores[i].log_probability, alone[i].log_probability) << i;
    }
  });
}

TEST_F(RequestScoresTest, NoRequestsGiveNoScores) {
  requests_.clear();
  const auto solo = MakeSoloCollective();
  EXPECT_TRUE(Batches().Score(Model(), OptionsOf(plan_), *solo, [] { FAIL(); }).empty());
  EXPECT_EQ(Batches().GroupsOf(0, 2), 0);
  EXPECT_EQ(Batches().GroupsOf(1, 2), 0);
}

}  // namespace
}  // namespace tandem
