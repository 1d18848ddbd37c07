// Token means: the loss of a text is the mean over its scored tokens (method.md §8, as
// lm-evaluation-harness weighs its windows), whichever sequences they stand in.
//
// Sequences give their own mean and the number of their targets; with a label mask those numbers
// differ, and an answer of three tokens must not count like one of three hundred. What is drawn
// independently is the sequence, so that errors are those of a ratio of two sums. Pure arithmetic;
// any thread. Both lists have one entry per sequence and are not empty; every target count is > 0.
#pragma once

#include <vector>

namespace tandem {

// means: of each sequence over its targets.
double TokenMean(const std::vector<double>& means, const std::vector<double>& targets);
// Its standard error over at least 2 sequences; with equal targets that of the mean of the means.
double TokenMeanError(const std::vector<double>& means, const std::vector<double>& targets);

}  // namespace tandem
