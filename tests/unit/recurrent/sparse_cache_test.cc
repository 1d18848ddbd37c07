// The sparse cache against a naive double-precision reading of its definition (sparse_cache.h).
#include <ATen/ops/cat.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/unit/recurrent/recurrent_cases.h"
#include "worker/model/evaluation_forward.h"

namespace tandem::testing {
namespace {

constexpr int64_t kTokens = 40, kDim = 8, kFeatures = 16;
using Row = std::vector<double>;

double Dot(const Row& a, const Row& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

Row RowOf(const at::Tensor& x_BHTd, int64_t head, int64_t token) {
  const at::Tensor row = x_BHTd.select(0, 0).select(0, head).select(0, token).to(at::kDouble);
  Row values;
  for (int64_t i = 0; i < row.numel(); ++i) values.push_back(row[i].item<double>());
  return values;
}

// One head, all tokens: what it keeps and what it folds, token by token.
struct NaiveHead {
  std::vector<Row> q, k, v, phi_q, phi_k;
  double gamma = 0;
  int64_t window = 4, size = 3, sinks = 0;
  std::vector<int64_t> cached;
  std::vector<double> scores;
  std::vector<int64_t> folded;

  double Readout(int64_t key, size_t dim) const {
    double number = 0, mass = 0;
    for (const int64_t j : folded) {
      const double x = Dot(phi_k[at(key)], phi_k[at(j)]);
      number += x * v[at(j)][dim];
      mass += x;
    }
    return number / std::max(mass, 1e-12);
  }
  void Leave(int64_t key) {
    double error = 0;
    for (size_t dim = 0; dim < kDim; ++dim)
      error += std::pow(Readout(key, dim) - v[at(key)][dim], 2);
    const double score = std::sqrt(error) * std::sqrt(Dot(k[at(key)], k[at(key)]));
    if (static_cast<int64_t>(cached.size()) < size) {
      cached.push_back(key);
      scores.push_back(score);
      return;
    }
    const auto lowest = std::min_element(scores.begin(), scores.end());
    if (score <= *lowest) return folded.push_back(key);
    folded.push_back(cached[static_cast<size_t>(lowest - scores.begin())]);
    cached[static_cast<size_t>(lowest - scores.begin())] = key;
    *lowest = score;
  }
  Row Attend(int64_t row) {
    if (row >= window && row - window >= sinks) Leave(row - window);
    std::vector<int64_t> set = cached;
    for (int64_t j = 0; j <= row; ++j) {
      if (j > row - window || j < sinks) set.push_back(j);
    }
    double top = -std::numeric_limits<double>::infinity(), total = 0;
    for (const int64_t j : set) top = std::max(top, Dot(q[at(row)], k[at(j)]) / std::sqrt(8.0));
    Row y(kDim, 0.0);
    const auto add = [&](int64_t j, double weight) {
      total += weight;
      for (size_t dim = 0; dim < kDim; ++dim) y[dim] += weight * v[at(j)][dim];
    };
    for (const int64_t j : set) {
      add(j, gamma * std::exp(Dot(q[at(row)], k[at(j)]) / std::sqrt(8.0) - top));
    }
    for (const int64_t j : folded) add(j, Dot(phi_q[at(row)], phi_k[at(j)]));
    for (double& value : y) value /= total;
    return y;
  }
  static size_t at(int64_t i) { return static_cast<size_t>(i); }
};

class SparseCache : public ::testing::TestWithParam<bool> {};

TEST_P(SparseCache, KeepsWhatItsDefinitionSays) {
  const bool tied = GetParam();
  const int64_t H = 4, K = 2;
  const at::Tensor q = RandomTensor({1, H, kTokens, kDim}, 1.5, 1);
  const at::Tensor k = RandomTensor({1, K, kTokens, kDim}, 1.5, 2);
  const at::Tensor v = RandomTensor({1, K, kTokens, kDim}, 1.0, 3);
  RecurrentMaps maps;
  maps.w_q = RandomTensor({H, kDim, kFeatures / 2}, 1.0, 4);
  maps.w_k = RandomTensor({tied ? K : H, kDim, kFeatures / 2}, 1.0, 5);
  maps.gamma_H = RandomTensor({H}, 0.2, 6).add(0.4);
  RecurrentOptions options;
  options.form.window = 4;
  options.form.sinks = 2;
  options.form.cache_size = 3;
  const RecurrentAttention attention(options, maps, {}, H, K);
  LayerMemory memory;
  const at::Tensor y = attention.Attend(q, k, v, &memory);
  const at::Tensor phi_q = FeatureMap(options.form, q, maps.w_q, {});
  const at::Tensor phi_k = FeatureMap(options.form, k, maps.w_k, {});
  for (int64_t h = 0; h < H; ++h) {
    NaiveHead head;
    head.gamma = maps.gamma_H[h].item<double>();
    head.sinks = 2;
    for (int64_t t = 0; t < kTokens; ++t) {
      head.q.push_back(RowOf(q, h, t));
      head.k.push_back(RowOf(k, h / 2, t));
      head.v.push_back(RowOf(v, h / 2, t));
      head.phi_q.push_back(RowOf(phi_q, h, t));
      head.phi_k.push_back(RowOf(phi_k, tied ? h / 2 : h, t));
    }
    bool replaced = false;
    for (int64_t t = 0; t < kTokens; ++t) {
      const std::vector<int64_t> before = head.cached;
      const Row wanted = head.Attend(t), got = RowOf(y, h, t);
      replaced = replaced || (before.size() == 3 && before != head.cached);
      for (size_t i = 0; i < kDim; ++i)
        ASSERT_NEAR(got[i], wanted[i], 2e-5) << "h " << h << " t " << t;
    }
    EXPECT_TRUE(replaced && !head.folded.empty()) << "the case must use the cache's every branch";
  }
}

INSTANTIATE_TEST_SUITE_P(Tied, SparseCache, ::testing::Bool());

struct PartsCase {
  WindowKind kind;
  int64_t sinks, cache;
  bool swap, tied;
};

// In blocks of rows, cut wherever: the rows, the shares and what is remembered are those of tokens
// that come one by one.
class SparseCacheInParts : public ::testing::TestWithParam<PartsCase> {
 protected:
  static constexpr int64_t kLength = 300, H = 4, K = 2;
  SparseCacheInParts() {
    const PartsCase& given = GetParam();
    options_.form.window = 8;
    options_.form.window_kind = given.kind;
    options_.form.sinks = given.sinks;
    options_.form.cache_size = given.cache;
    options_.swap_sums = given.swap;
    maps_.w_q = RandomTensor({H, kDim, kFeatures / 2}, 1.0, 4);
    maps_.w_k = RandomTensor({given.tied ? K : H, kDim, kFeatures / 2}, 1.0, 5);
    maps_.gamma_H = RandomTensor({H}, 0.2, 6).add(0.4);
  }
  at::Tensor InParts(int64_t part, LayerMemory* memory, at::Tensor* share) const {
    const RecurrentAttention attention(options_, maps_, {}, H, K);
    std::vector<at::Tensor> rows, shares;
    for (int64_t begin = 0; begin < kLength; begin += part) {
      const int64_t count = std::min(part, kLength - begin);
      shares.push_back(at::zeros({2, H, count}));
      rows.push_back(attention.Attend(q_.narrow(2, begin, count), k_.narrow(2, begin, count),
                                      v_.narrow(2, begin, count), memory, shares.back()));
    }
    *share = at::cat(shares, 2);
    return at::cat(rows, 2);
  }

  RecurrentOptions options_;
  RecurrentMaps maps_;
  at::Tensor q_ = RandomTensor({2, H, kLength, kDim}, 1.5, 1);
  at::Tensor k_ = RandomTensor({2, K, kLength, kDim}, 1.5, 2);
  at::Tensor v_ = RandomTensor({2, K, kLength, kDim}, 1.0, 3);
};

// (B,H): the scores of the keys in the cache, added up; their places are free.
at::Tensor Held(const LayerMemory& memory) {
  const at::Tensor& score = memory.cached_score;
  return score.masked_fill(score.isinf(), 0).sum(-1);
}

TEST_P(SparseCacheInParts, AreTheTokensOneByOne) {
  LayerMemory one_by_one;
  at::Tensor share;
  const at::Tensor wanted = InParts(1, &one_by_one, &share);
  for (const int64_t part : {kLength, int64_t{37}}) {
    LayerMemory memory;
    at::Tensor got_share;
    const at::Tensor got = InParts(part, &memory, &got_share);
    EXPECT_LT(RelativeDistance(got, wanted), kIdentityTolerance) << part;
    EXPECT_LT(RelativeDistance(got_share, share), kIdentityTolerance) << part;
    EXPECT_LT(RelativeDistance(memory.S, one_by_one.S), kIdentityTolerance) << part;
    EXPECT_LT(RelativeDistance(memory.z, one_by_one.z), kIdentityTolerance) << part;
    EXPECT_LT(RelativeDistance(Held(memory), Held(one_by_one)), kIdentityTolerance) << part;
  }
}

INSTANTIATE_TEST_SUITE_P(Forms, SparseCacheInParts,
                         ::testing::Values(PartsCase{WindowKind::kSliding, 0, 3, false, false},
                                           PartsCase{WindowKind::kSliding, 12, 40, false, true},
                                           PartsCase{WindowKind::kSliding, 3, 200, true, false},
                                           PartsCase{WindowKind::kSliding, 0, 250, false, false},
                                           PartsCase{WindowKind::kTerraced, 0, 20, false, false},
                                           PartsCase{WindowKind::kTerraced, 12, 150, true, true}),
                         [](const auto& test) {
                           const bool terraced = test.param.kind == WindowKind::kTerraced;
                           return (terraced ? "terraced" : "sliding") +
                                  std::to_string(test.param.cache);
                         });

// The evaluation runs the cache too, with its probes.
TEST(SparseCacheOf, TheEvaluationIsTheDecoders) {
  const Conversion tiny;
  const at::Tensor ids = RandomIds(2, 90, 64, 8);
  EvaluationOptions evaluation;
  evaluation.attention.window = 8;
  evaluation.attention.cache_size = 5;
  evaluation.attention.retained = {{1}, {}};
  RecurrentOptions options;
  options.form = evaluation.attention;
  const RecurrentModel model(*tiny.model, &tiny.parameters, options);
  const at::Tensor wanted = EvaluateLogits(*tiny.model, tiny.parameters, ids, evaluation);
  EXPECT_LT(RelativeDistance(LogitsInParts(model, ids, {50, 1}), wanted), kIdentityTolerance);

  evaluation.linear_mass = true;
  evaluation.mass_from_row = 16;
  const EvaluationResult plain = EvaluateSequences(*tiny.model, tiny.parameters, ids, evaluation);
  const at::Tensor mass = plain.linear_mass_MH;
  EXPECT_EQ(mass.select(0, 0).narrow(0, 2, 2).abs().max().item<double>(), 0) << "retained";
  EXPECT_GT(mass.select(0, 0).narrow(0, 0, 2).min().item<double>(), 0);
  EXPECT_GT(mass.select(0, 1).min().item<double>(), 0);
  EXPECT_LT(mass.max().item<double>(), 1);

  evaluation.linear_mass = false;
  evaluation.state_swap = true;
  const EvaluationResult swapped = EvaluateSequences(*tiny.model, tiny.parameters, ids, evaluation);
  const at::Tensor change = swapped.losses.sub(plain.losses).abs();
  EXPECT_LT(change.narrow(1, 0, 8).max().item<double>(), 1e-6) << "nothing has left the window";
  EXPECT_GT(change.max().item<double>(), 1e-3);
}

// With room for every key it is full softmax, whatever the maps and factors are.
TEST(SparseCacheOf, EveryKeyIsFullSoftmax) {
  const Conversion tiny;
  const at::Tensor ids = tiny.ids.narrow(1, 0, 120);
  RecurrentOptions options;
  options.form.window = 8;
  options.form.cache_size = 120;
  const RecurrentModel cached(*tiny.model, &tiny.parameters, options);
  options.mode = ComponentMode::kSoftmax;
  options.form.cache_size = 0;
  const RecurrentModel softmax(*tiny.model, &tiny.parameters, options);
  EXPECT_LT(
      RelativeDistance(LogitsInParts(cached, ids, {50, 1}), LogitsInParts(softmax, ids, {120})),
      kIdentityTolerance);
}

}  // namespace
}  // namespace tandem::testing
