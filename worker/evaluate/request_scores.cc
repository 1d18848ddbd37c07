#include "worker/evaluate/request_scores.h"

#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace tandem {
namespace {

// Long requests first. A group is as long as its first and holds at most kGroupTokens, its filling
// included, or one request.
std::vector<std::vector<int64_t>> GroupByLength(const std::vector<Request>& requests) {
  std::vector<int64_t> order(requests.size());
  std::iota(order.begin(), order.end(), 0);
  const auto length = [&requests](int64_t i) { return requests[static_cast<size_t>(i)].length; };
  std::stable_sort(order.begin(), order.end(),
                   [&length](int64_t a, int64_t b) { return length(a) > length(b); });
  std::vector<std::vector<int64_t>> groups;
  for (const int64_t request : order) {
    const int64_t size = groups.empty() ? 0 : static_cast<int64_t>(groups.back().size());
    const bool is_full = size == 0 || size == kGroupSequences ||
                         (size + 1) * length(groups.back().front()) > kGroupTokens;
    if (is_full) groups.emplace_back();
    groups.back().push_back(request);
  }
  return groups;
}

// Tokens of the longest request of a group that go through the model, which takes 2 or more: the
// second of two is one too many, and the row before cannot see it.
int64_t TokensRead(int64_t length) {
  return std::max<int64_t>(2, length - 1);
}

// Cut where the length changes.
std::vector<std::vector<int64_t>> OfOneLength(const std::vector<int64_t>& group,
                                              const std::vector<Request>& requests) {
  std::vector<std::vector<int64_t>> parts;
  int64_t last = 0;
  for (const int64_t request : group) {
    const int64_t length = requests[static_cast<size_t>(request)].length;
    if (length != last) parts.emplace_back();
    parts.back().push_back(request);
    last = length;
  }
  return parts;
}

}  // namespace

RequestBatches::RequestBatches(std::vector<Request> requests, ReadIds read)
    : requests_(std::move(requests)), read_(std::move(read)), groups_(GroupByLength(requests_)) {
  first_span_.push_back(0);
  for (const Request& request : requests_) {
    TANDEM_CHECK(request.length >= 2);
    for (const ScoredSpan& span : request.spans) {
      TANDEM_CHECK(span.instead < 0 || span.length == 1);
    }
    first_span_.push_back(first_span_.back() + static_cast<int64_t>(request.spans.size()));
  }
}

int64_t RequestBatches::GroupsOf(int64_t rank, int64_t ranks) const {
  const auto groups = static_cast<int64_t>(groups_.size());
  return (groups - rank + ranks - 1) / ranks;
}

int64_t RequestBatches::num_tokens() const {
  int64_t tokens = 0;
  for (const std::vector<int64_t>& group : groups_) {
    const int64_t length = requests_[static_cast<size_t>(group.front())].length;
    tokens += static_cast<int64_t>(group.size()) * TokensRead(length);
  }
  return tokens;
}

int64_t RequestBatches::mean_length() const {
  return requests_.empty() ? 0 : num_tokens() / static_cast<int64_t>(requests_.size());
}

std::vector<OtherTarget> RequestBatches::OthersOf(const std::vector<int64_t>& group,
                                                  const at::Tensor& ids_BT, int64_t read) const {
  std::vector<OtherTarget> others;
  const int64_t T = ids_BT.size(1);
  for (size_t row = 0; row < group.size(); ++row) {
    for (const ScoredSpan& span : requests_[static_cast<size_t>(group[row])].spans) {
      const int64_t sequence = static_cast<int64_t>(row), end = span.start + span.length;
      if (span.instead >= 0) {
        others.push_back({sequence, span.start - 1, span.instead});
      } else if (end > read) {
        others.push_back(
            {sequence, read - 1, ids_BT.const_data_ptr<int64_t>()[sequence * T + read]});
      }
    }
  }
  return others;
}

void RequestBatches::RunGroup(const EvaluatedModel& model, const EvaluationOptions& options,
                              const std::vector<int64_t>& group,
                              std::vector<double>* scores) const {
  const int64_t T = requests_[static_cast<size_t>(group.front())].length;
  at::Tensor ids = at::zeros({static_cast<int64_t>(group.size()), T}, at::kLong);
  for (size_t row = 0; row < group.size(); ++row) {
    read_(group[row], ids.mutable_data_ptr<int64_t>() + static_cast<int64_t>(row) * T);
  }
  const int64_t read = TokensRead(T);
  EvaluationOptions of_group = options;
  of_group.others = OthersOf(group, ids, read);
  const EvaluationResult result = RunPass(model, ids.narrow(1, 0, read).contiguous(), of_group);
  const at::Tensor losses = result.losses.to(at::kCPU, at::kDouble).contiguous();
  const at::Tensor others = result.other_losses.to(at::kCPU, at::kDouble).contiguous();
  const at::Tensor predicted = result.predicted_BT.to(at::kCPU).contiguous();
  const double* other = others.const_data_ptr<double>();
  for (size_t row = 0; row < group.size(); ++row) {
    const auto place = static_cast<int64_t>(row);
    const double* loss = losses.const_data_ptr<double>() + place * (read - 1);
    const int64_t* guess = predicted.const_data_ptr<int64_t>() + place * read;
    const int64_t* truth = ids.const_data_ptr<int64_t>() + place * T;
    for (const ScoredSpan& span : requests_[static_cast<size_t>(group[row])].spans) {
      double sum = 0;
      bool is_greedy = true;
      for (int64_t t = span.start; t < span.start + span.length; ++t) {
        sum -= span.instead < 0 && t < read ? loss[t - 1] : *other++;
        is_greedy = is_greedy && guess[t - 1] == (span.instead < 0 ? truth[t] : span.instead);
      }
      scores->push_back(sum);
      scores->push_back(is_greedy && std::isfinite(sum) ? 1 : 0);
    }
  }
}

std::vector<SpanScore> RequestBatches::Score(const EvaluatedModel& model,
                                             const EvaluationOptions& options,
                                             Collective& collective, const GroupDone& done) const {
  EvaluationOptions with_guesses = options;
  with_guesses.predictions = true;
  std::vector<double> mine;
  for (size_t group = static_cast<size_t>(collective.rank()); group < groups_.size();
       group += static_cast<size_t>(collective.size())) {
    const auto parts = options.attention.DependsOnLength()
                           ? OfOneLength(groups_[group], requests_)
                           : std::vector<std::vector<int64_t>>{groups_[group]};
    for (const auto& part : parts) RunGroup(model, with_guesses, part, &mine);
    done();
  }
  const std::vector<double> all = collective.AllGather(mine);
  TANDEM_CHECK(static_cast<int64_t>(all.size()) == 2 * num_spans());
  std::vector<SpanScore> scores(static_cast<size_t>(num_spans()));
  size_t at = 0;
  for (size_t rank = 0; rank < static_cast<size_t>(collective.size()); ++rank) {
    for (size_t group = rank; group < groups_.size();
         group += static_cast<size_t>(collective.size())) {
      for (const int64_t request : groups_[group]) {
        const int64_t first = first_span_[static_cast<size_t>(request)];
        const int64_t last = first_span_[static_cast<size_t>(request) + 1];
        for (int64_t span = first; span < last; ++span, at += 2) {
          scores[static_cast<size_t>(span)] = {all[at], all[at + 1] == 1};
        }
      }
    }
  }
  return scores;
}

}  // namespace tandem
