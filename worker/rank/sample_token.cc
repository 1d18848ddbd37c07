#include "worker/rank/sample_token.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "worker/data/philox.h"

namespace tandem {

std::vector<Candidate> Nucleus(const float* logits, int64_t vocab, const Sampling& sampling) {
  const double top = *std::max_element(logits, logits + vocab);
  std::vector<Candidate> all;
  all.reserve(static_cast<size_t>(vocab));
  double sum = 0;
  for (int64_t id = 0; id < vocab; ++id) {
    const double weight = std::exp((logits[id] - top) / sampling.temperature);
    all.push_back({id, weight});
    sum += weight;
  }
  std::stable_sort(all.begin(), all.end(), [](const Candidate& a, const Candidate& b) {
    return a.probability > b.probability;
  });
  double held = 0;
  size_t count = 0;
  while (count < all.size() && (count == 0 || held < sampling.top_p * sum)) {
    held += all[count++].probability;
  }
  all.resize(count);
  for (Candidate& candidate : all) candidate.probability /= held;
  return all;
}

int64_t SampleToken(const float* logits, int64_t vocab, const Sampling& sampling,
                    int64_t token_number) {
  if (sampling.temperature <= 0) return std::max_element(logits, logits + vocab) - logits;
  const std::vector<Candidate> nucleus = Nucleus(logits, vocab, sampling);
  double left = PhiloxStream(sampling.seed, 0, RandomPurpose::kGeneration).Uniform(token_number);
  for (const Candidate& candidate : nucleus) {
    left -= candidate.probability;
    if (left < 0) return candidate.id;
  }
  return nucleus.back().id;
}

}  // namespace tandem
