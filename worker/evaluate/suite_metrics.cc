#include "worker/evaluate/suite_metrics.h"

#include <cmath>
#include <map>
#include <numbers>

#include "base/status.h"

namespace tandem {
namespace {

struct Mean {
  double value = 0;
  double variance = 0;  // of the mean
};

Mean MeanOf(const std::vector<double>& values) {
  const auto count = static_cast<double>(values.size());
  Mean mean;
  for (const double value : values) mean.value += value;
  mean.value /= count;
  for (const double value : values) {
    const double off = value - mean.value;
    if (count > 1) mean.variance += off * off / (count - 1) / count;
  }
  return mean;
}

// Items' mean; where items have groups, the mean of the groups' means.
Mean MeanOverGroups(const Suite& suite, const std::vector<double>& values) {
  std::map<std::string, std::vector<double>> groups;
  for (size_t i = 0; i < values.size(); ++i) groups[suite.items[i].group].push_back(values[i]);
  const auto count = static_cast<double>(groups.size());
  Mean mean;
  for (const auto& [name, of_group] : groups) {
    const Mean one = MeanOf(of_group);
    mean.value += one.value / count;
    mean.variance += one.variance / count / count;
  }
  return mean;
}

// 1 or 0 per item; NaN where a choice has no finite score.
std::vector<double> RightChoices(const Suite& suite, const std::vector<ContinuationScore>& scores,
                                 bool by_length) {
  std::vector<double> right;
  size_t at = 0;
  for (const SuiteItem& item : suite.items) {
    size_t best = 0;
    double most = -INFINITY;
    bool is_finite = true;
    for (size_t choice = 0; choice < item.starts.size(); ++choice, ++at) {
      double score = scores[at].log_probability;
      is_finite = is_finite && std::isfinite(score);
      if (by_length) score /= item.lengths[choice];
      if (score > most) {
        most = score;
        best = choice;
      }
    }
    right.push_back(!is_finite ? NAN : (static_cast<int64_t>(best) == item.answer ? 1 : 0));
  }
  return right;
}

SuiteScore ScoreChoices(const Suite& suite, const std::vector<ContinuationScore>& scores) {
  const Mean acc = MeanOverGroups(suite, RightChoices(suite, scores, false));
  SuiteScore score{acc.value, std::sqrt(acc.variance), {{"acc", acc.value}}};
  bool has_lengths = true;
  for (const SuiteItem& item : suite.items) {
    has_lengths = has_lengths && item.lengths.size() == item.starts.size();
  }
  if (!has_lengths) return score;
  const Mean norm = MeanOverGroups(suite, RightChoices(suite, scores, true));
  score.also.push_back({"acc_norm", norm.value});
  if (suite.metric == "acc_norm") {
    score.value = norm.value;
    score.standard_error = std::sqrt(norm.variance);
  }
  return score;
}

SuiteScore ScoreGreedy(const Suite& suite, const std::vector<ContinuationScore>& scores) {
  std::vector<double> right, log_probabilities;
  for (const ContinuationScore& score : scores) {
    const bool is_finite = std::isfinite(score.log_probability);
    right.push_back(!is_finite ? NAN : (score.is_greedy ? 1 : 0));
    log_probabilities.push_back(score.log_probability);
  }
  const Mean acc = MeanOverGroups(suite, right);
  SuiteScore score{acc.value, std::sqrt(acc.variance), {{"acc", acc.value}}};
  if (suite.metric == "lambada") {
    score.also.push_back({"perplexity", std::exp(-MeanOf(log_probabilities).value)});
  }
  return score;
}

// exp(-sum log p / sum words): a ratio, its error by the first-order rule over documents.
SuiteScore ScoreText(const Suite& suite, const std::vector<ContinuationScore>& scores) {
  std::vector<double> of_document;
  double sum = 0, words = 0, bytes = 0;
  size_t at = 0;
  for (const SuiteItem& item : suite.items) {
    double document = 0;
    for (size_t window = 0; window < item.starts.size(); ++window, ++at) {
      document += scores[at].log_probability;
    }
    of_document.push_back(document);
    sum += document;
    words += item.words;
    bytes += item.bytes;
  }
  const double rate = -sum / words;
  double squares = 0;
  for (size_t i = 0; i < of_document.size(); ++i) {
    const double off = -of_document[i] - rate * suite.items[i].words;
    squares += off * off;
  }
  const auto count = static_cast<double>(of_document.size());
  const double error = count > 1 ? std::sqrt(squares * count / (count - 1)) / words : NAN;
  SuiteScore score{std::exp(rate), std::exp(rate) * error, {{"word_perplexity", std::exp(rate)}}};
  score.also.push_back({"byte_perplexity", std::exp(-sum / bytes)});
  score.also.push_back({"bits_per_byte", -sum / bytes / std::numbers::ln2});
  return score;
}

}  // namespace

SuiteScore ScoreSuite(const Suite& suite, const std::vector<ContinuationScore>& scores) {
  size_t requests = 0;
  for (const SuiteItem& item : suite.items) requests += item.starts.size();
  TANDEM_CHECK(requests == scores.size() && !suite.items.empty());
  if (suite.metric == "perplexity") return ScoreText(suite, scores);
  if (suite.metric == "lambada" || suite.metric == "exact") return ScoreGreedy(suite, scores);
  return ScoreChoices(suite, scores);
}

}  // namespace tandem
