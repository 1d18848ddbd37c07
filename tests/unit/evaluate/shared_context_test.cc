// Choices of one token after one context (MMLU's letters) share a forward pass, with the scores of
// a pass each.
#include <gtest/gtest.h>

#include "tests/unit/evaluate/thread_ranks.h"
#include "tests/unit/evaluate/tiny_conversion.h"
#include "worker/evaluate/suites.h"

namespace tandem {
namespace {

using Ids = std::vector<uint16_t>;

class SharedContextTest : public TinyConversion {
 protected:
  Ids Context(int64_t item, int64_t length) const {
    const PhiloxStream stream(6, item, RandomPurpose::kTest);
    Ids ids;
    for (int64_t t = 0; t < length; ++t) {
      ids.push_back(static_cast<uint16_t>(stream.Below(kTinyVocab, t)));
    }
    return ids;
  }
  // Continuations after one context each.
  void AddItem(const std::vector<Ids>& contexts, const std::vector<Ids>& continuations) {
    SuiteItem item;
    item.first = static_cast<int64_t>(documents_.size());
    for (size_t i = 0; i < continuations.size(); ++i) {
      item.starts.push_back(static_cast<int64_t>(contexts[i].size()));
      documents_.push_back(contexts[i]);
      documents_.back().insert(documents_.back().end(), continuations[i].begin(),
                               continuations[i].end());
    }
    suite_.items.push_back(item);
  }
  void WriteDocuments() {
    ASSERT_TRUE(WriteShard(folder_.File("suites"), MakeShard(documents_)).ok());
    shard_ = TokenShard::Open(folder_.File("suites")).value();
  }
  // A request per choice.
  RequestBatches Apart() const {
    std::vector<Request> requests;
    for (const SuiteItem& item : suite_.items) {
      for (size_t i = 0; i < item.starts.size(); ++i) {
        const auto length =
            static_cast<int64_t>(documents_[static_cast<size_t>(item.first) + i].size());
        requests.push_back({length, {{item.starts[i], length - item.starts[i]}}});
      }
    }
    return {requests, [this](int64_t request, int64_t* ids) {
              const Ids& from = documents_[static_cast<size_t>(request)];
              std::copy(from.begin(), from.end(), ids);
            }};
  }
  void ExpectSameScores(Collective& collective) const {
    for (const ComponentMode mode : {ComponentMode::kSoftmax, ComponentMode::kHybrid,
                                     ComponentMode::kWindowOnly, ComponentMode::kLinearOnly}) {
      EvaluationOptions options = OptionsOf(plan_);
      options.mode = mode;
      const auto shared = BatchesOf(suite_, *shard_)->Score(Model(), options, collective, [] {});
      const auto apart = Apart().Score(Model(), options, collective, [] {});
      ASSERT_EQ(shared.size(), apart.size());
      for (size_t i = 0; i < shared.size(); ++i) {
        EXPECT_NEAR(shared[i].log_probability, apart[i].log_probability, 2e-5)
            << ComponentModeName(mode) << " choice " << i;
        EXPECT_EQ(shared[i].is_greedy, apart[i].is_greedy);
      }
    }
  }

  Suite suite_{"mmlu", "acc", {}};
  std::vector<Ids> documents_;
  std::unique_ptr<TokenShard> shard_;
};

TEST_F(SharedContextTest, FourLettersAreOneForwardPass) {
  for (int64_t i = 0; i < 10; ++i) {
    const Ids context = Context(i, 3 + 13 * i % 60);
    AddItem({context, context, context, context}, {{1}, {2}, {3}, {4}});
  }
  WriteDocuments();
  EXPECT_EQ(Apart().requests().size(), 40u);
  EXPECT_EQ(BatchesOf(suite_, *shard_)->requests().size(), 10u);
  EXPECT_LT(3 * BatchesOf(suite_, *shard_)->num_tokens(), Apart().num_tokens());
  ExpectSameScores(*MakeSoloCollective());
  OnRanks(2, [&](Collective& collective) { ExpectSameScores(collective); });
}

TEST_F(SharedContextTest, OtherContextsAndLongerChoicesKeepTheirOwn) {
  const Ids a = Context(1, 20), b = Context(2, 20), longer = Context(1, 21);
  AddItem({a, b}, {{1}, {2}});             // two contexts
  AddItem({a, longer}, {{1}, {2}});        // one more token of context
  AddItem({a, a}, {{1, 2}, {3, 4}});       // two tokens each
  AddItem({a, a, a}, {{1, 2}, {3}, {4}});  // letters beside a longer choice: one token less is read
  AddItem({a, a}, {{5}, {5}});             // the same choice twice
  AddItem({a}, {{5}});                     // another item's context is not looked at
  WriteDocuments();
  EXPECT_EQ(BatchesOf(suite_, *shard_)->requests().size(), 2u + 2u + 2u + 2u + 1u + 1u);
  ExpectSameScores(*MakeSoloCollective());
}

}  // namespace
}  // namespace tandem
