// The next token from a row of logits: the largest, or a draw from the temperature's softmax cut to
// the nucleus (Holtzman et al., "The Curious Case of Neural Text Degeneration", top_p).
//
// The draw for token number n is a pure function of (seed, n): the same request gives the same
// text. Free of state: any thread. Cannot fail; a row with NaN gives its first NaN's index, which
// callers refuse first.
#pragma once

#include <cstdint>
#include <vector>

namespace tandem {

struct Sampling {
  double temperature = 0;  // 0: always the largest logit, the first of equals
  double top_p = 1;        // in (0, 1]: the fewest likely tokens that hold this probability
  uint64_t seed = 0;
};

int64_t SampleToken(const float* logits, int64_t vocab, const Sampling& sampling,
                    int64_t token_number);

// exp(logit / temperature) of the nucleus, most likely first (ties: smaller id), summing to 1.
struct Candidate {
  int64_t id = 0;
  double probability = 0;
};
std::vector<Candidate> Nucleus(const float* logits, int64_t vocab, const Sampling& sampling);

}  // namespace tandem
