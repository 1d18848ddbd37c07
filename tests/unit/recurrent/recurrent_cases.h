// What the tests of the recurrent form share: a tiny disturbed conversion, its ids, and one number
// for how far two tensors are apart.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/ops/cat.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/unit/train/tiny_model.h"
#include "worker/model/recurrent/recurrent_model.h"

namespace tandem::testing {

// fp32 sums in another order; method.md §4 allows 1e-5 of the largest value.
inline constexpr double kIdentityTolerance = 1e-5;

inline double RelativeDistance(const at::Tensor& a, const at::Tensor& b) {
  return a.sub(b).abs().max().item<double>() / b.abs().max().item<double>();
}

// A model, its parameters for one kind of map, and ids of 1024 tokens.
struct Conversion {
  explicit Conversion(ParameterOptions options = WithoutLora())
      : parameters(TinyConfig(), options) {
    at::set_num_threads(1);
    Disturb(parameters);
  }
  static ParameterOptions WithoutLora() {
    ParameterOptions options = TinyParameterOptions();
    options.lora = {};
    return options;
  }

  std::unique_ptr<Llama> model = TinyModel();
  Parameters parameters;
  at::Tensor ids = RandomIds(1, 1024, 64, 5);
};

// All logits of ids read in parts of these lengths, the last repeated to the end.
inline at::Tensor LogitsInParts(const RecurrentModel& model, const at::Tensor& ids_BT,
                                const std::vector<int64_t>& parts, RecurrentState* state) {
  std::vector<at::Tensor> logits;
  for (int64_t begin = 0, i = 0; begin < ids_BT.size(1); ++i) {
    const size_t index = std::min(static_cast<size_t>(i), parts.size() - 1);
    const int64_t count = std::min(parts[index], ids_BT.size(1) - begin);
    logits.push_back(model.Advance(ids_BT.narrow(1, begin, count), true, state));
    begin += count;
  }
  return at::cat(logits, 1);
}

inline at::Tensor LogitsInParts(const RecurrentModel& model, const at::Tensor& ids_BT,
                                const std::vector<int64_t>& parts) {
  RecurrentState state = model.Start();
  return LogitsInParts(model, ids_BT, parts, &state);
}

}  // namespace tandem::testing
