#include "worker/evaluate/suites.h"

#include <algorithm>

namespace tandem {
namespace {

constexpr const char* kMmlu = "mmlu";

int64_t LengthOf(const TokenShard& shard, int64_t document) {
  return shard.DocumentBegin(document + 1) - shard.DocumentBegin(document);
}

std::vector<int64_t> TokensOf(const TokenShard& shard, int64_t document) {
  std::vector<int64_t> ids(static_cast<size_t>(LengthOf(shard, document)));
  shard.Read(shard.DocumentBegin(document), static_cast<int64_t>(ids.size()), ids.data());
  return ids;
}

// The same tokens before the last: what the model reads of a request.
bool ReadsAlike(const std::vector<int64_t>& a, const std::vector<int64_t>& b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end() - 1, b.begin());
}

}  // namespace

std::unique_ptr<RequestBatches> BatchesOf(const Suite& suite, const TokenShard& shard) {
  std::vector<Request> requests;
  std::vector<int64_t> documents;
  for (const SuiteItem& item : suite.items) {
    std::vector<int64_t> newest;  // tokens of the item's newest request
    for (size_t i = 0; i < item.starts.size(); ++i) {
      const int64_t document = item.first + static_cast<int64_t>(i), start = item.starts[i];
      std::vector<int64_t> ids = TokensOf(shard, document);
      const auto length = static_cast<int64_t>(ids.size());
      if (length == start + 1 && ReadsAlike(newest, ids)) {
        requests.back().spans.push_back({start, 1, ids.back()});
        continue;
      }
      requests.push_back({length, {{start, length - start}}});
      documents.push_back(document);
      newest = std::move(ids);
    }
  }
  const auto read = [&shard, documents](int64_t request, int64_t* ids) {
    const int64_t document = documents[static_cast<size_t>(request)];
    shard.Read(shard.DocumentBegin(document), LengthOf(shard, document), ids);
  };
  return std::make_unique<RequestBatches>(std::move(requests), read);
}

SuiteMeasurement::SuiteMeasurement(const SuiteFile& file, const Plan& plan)
    : file_(file), plan_(plan) {
  for (const Suite& suite : file.suites) batches_.push_back(BatchesOf(suite, *file.requests));
}

int64_t SuiteMeasurement::GroupsOf(int64_t rank, int64_t ranks) const {
  int64_t groups = 0;
  for (const auto& batches : batches_) groups += batches->GroupsOf(rank, ranks);
  return groups * static_cast<int64_t>(plan_.evaluate.suite_modes.size());
}

void SuiteMeasurement::AddWork(CostShape shape, ForwardWork* work) const {
  for (const auto& batches : batches_) {
    shape.tokens = batches->mean_length();
    for (const std::string& mode : plan_.evaluate.suite_modes) {
      work->Add(shape, mode, static_cast<double>(batches->num_tokens()));
    }
  }
}

// Row i scores token i + 1.
double SuiteMeasurement::LinearActive(const Suite& suite) const {
  double rows = 0, active = 0;
  for (const SuiteItem& item : suite.items) {
    for (size_t i = 0; i < item.starts.size(); ++i) {
      const int64_t length = LengthOf(*file_.requests, item.first + static_cast<int64_t>(i));
      const int64_t begin = item.starts[i] - 1, end = length - 1;
      const int64_t first_row = FirstLinearRow(plan_.attention, length - 1);
      rows += static_cast<double>(end - begin);
      active += static_cast<double>(std::max<int64_t>(0, end - std::max(begin, first_row)));
    }
  }
  return active / rows;
}

std::vector<SuiteFigures> SuiteMeasurement::Measure(const EvaluatedModel& model,
                                                    Collective& collective,
                                                    const GroupDone& done) const {
  std::vector<SuiteFigures> all;
  for (size_t i = 0; i < file_.suites.size(); ++i) {
    const Suite& suite = file_.suites[i];
    SuiteFigures figures{suite.name,
                         suite.metric,
                         static_cast<int64_t>(suite.items.size()),
                         LinearActive(suite),
                         {}};
    for (const std::string& mode : plan_.evaluate.suite_modes) {
      EvaluationOptions options = OptionsOf(plan_);
      const Result<ComponentMode> known = ComponentModeFromName(mode);
      TANDEM_CHECK_MSG(known.ok(), "evaluate.suite_modes: " + known.status().message());
      options.mode = *known;
      std::vector<ContinuationScore> scores;
      for (const SpanScore& span : batches_[i]->Score(model, options, collective, done)) {
        scores.push_back({span.log_probability, span.is_greedy});
      }
      figures.scores[mode] = ScoreSuite(suite, scores);
    }
    all.push_back(std::move(figures));
  }
  return all;
}

std::map<std::string, double> SuitesAverage(const std::vector<SuiteFigures>& suites,
                                            bool without_mmlu) {
  std::map<std::string, double> sums;
  double count = 0;
  for (const SuiteFigures& suite : suites) {
    const bool is_share = suite.metric == "acc" || suite.metric == "acc_norm";
    if (!is_share || (without_mmlu && suite.name == kMmlu)) continue;
    for (const auto& [mode, score] : suite.scores) sums[mode] += score.value;
    count += 1;
  }
  for (auto& [mode, sum] : sums) sum /= count;
  return sums;
}

}  // namespace tandem
