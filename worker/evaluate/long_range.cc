#include "worker/evaluate/long_range.h"

#include <algorithm>
#include <array>

namespace tandem {
namespace {

constexpr std::array<ComponentMode, 4> kModes = {ComponentMode::kSoftmax, ComponentMode::kHybrid,
                                                 ComponentMode::kWindowOnly,
                                                 ComponentMode::kLinearOnly};

RequestBatches BatchesOf(const std::vector<LongRangePrompt>& prompts) {
  std::vector<Request> requests;
  for (const LongRangePrompt& prompt : prompts) {
    Request request{static_cast<int64_t>(prompt.ids.size()), {}};
    for (const LongRangeAnswer& answer : prompt.answers) {
      request.spans.push_back({answer.start, answer.length});
    }
    requests.push_back(std::move(request));
  }
  return {std::move(requests), [&prompts](int64_t request, int64_t* ids) {
            const std::vector<int64_t>& from = prompts[static_cast<size_t>(request)].ids;
            std::copy(from.begin(), from.end(), ids);
          }};
}

bool IsRow(const LongRangeRow& row, const LongRangePrompt& prompt) {
  return row.kind == prompt.kind && row.amount == prompt.amount;
}

// The row of each prompt, rows sorted within their kind.
std::vector<LongRangeRow> RowsOf(const std::vector<LongRangePrompt>& prompts) {
  std::vector<LongRangeRow> rows;
  std::vector<std::string> kinds;
  for (const LongRangePrompt& prompt : prompts) {
    if (std::find(kinds.begin(), kinds.end(), prompt.kind) == kinds.end()) {
      kinds.push_back(prompt.kind);
    }
    auto row = std::find_if(rows.begin(), rows.end(),
                            [&prompt](const LongRangeRow& one) { return IsRow(one, prompt); });
    if (row == rows.end()) row = rows.insert(rows.end(), {prompt.kind, prompt.amount, 0, 0, 0, {}});
    row->length = std::max(row->length, static_cast<int64_t>(prompt.ids.size()));
    ++row->prompts;
    row->answers += static_cast<int64_t>(prompt.answers.size());
  }
  const auto rank = [&kinds](const LongRangeRow& row) {
    return std::make_pair(std::find(kinds.begin(), kinds.end(), row.kind) - kinds.begin(),
                          row.amount);
  };
  std::sort(rows.begin(), rows.end(),
            [&rank](const LongRangeRow& a, const LongRangeRow& b) { return rank(a) < rank(b); });
  return rows;
}

// Right answers of one kind beyond the windows' reach.
struct Beyond {
  int64_t answers = 0;
  std::map<std::string, double> right;  // by mode
};

std::string Percent(double share) {
  return std::to_string(static_cast<int64_t>(100 * share + 0.5)) + " %";
}

// The kinds have one voice each, however many answers they hold.
Recall RecallOf(const std::map<std::string, Beyond>& kinds, const std::string& served,
                int64_t reach) {
  const std::string where =
      "further back than the " + std::to_string(reach) + " tokens that the stacked windows see";
  double base = 0, converted = 0;
  std::string what;
  for (const auto& [kind, beyond] : kinds) {
    const auto count = static_cast<double>(beyond.answers);
    base += beyond.right.at("softmax") / count / static_cast<double>(kinds.size());
    converted += beyond.right.at(served) / count / static_cast<double>(kinds.size());
    what += (what.empty() ? "" : ", ") + kind + " " + std::to_string(beyond.answers);
  }
  if (kinds.empty()) {
    return {std::nullopt, "not measured: no pass key and no recalled fact lies " + where +
                              "; take longer prompts or a smaller window"};
  }
  if (base <= 0) {
    return {std::nullopt, "not defined: the base itself answers nothing (" + what + ") " + where};
  }
  return {converted / base, "of answers (" + what + ") " + where + ", mode " + served + " finds " +
                                Percent(converted) + ", the base " + Percent(base)};
}

}  // namespace

int64_t WindowReach(const AttentionPlan& attention, int64_t num_layers) {
  const int64_t keys =
      attention.window_kind == "terraced" ? 2 * attention.window_size : attention.window_size;
  return num_layers * (keys - 1);
}

LongRangeMeasurement::LongRangeMeasurement(const std::vector<LongRangePrompt>& prompts,
                                           const Plan& plan, int64_t num_layers)
    : prompts_(prompts),
      plan_(plan),
      reach_(WindowReach(plan.attention, num_layers)),
      batches_(BatchesOf(prompts)) {}

int64_t LongRangeMeasurement::GroupsOf(int64_t rank, int64_t ranks) const {
  return batches_.GroupsOf(rank, ranks) * static_cast<int64_t>(kModes.size());
}

void LongRangeMeasurement::AddWork(CostShape shape, ForwardWork* work) const {
  shape.tokens = batches_.mean_length();
  for (const ComponentMode mode : kModes) {
    work->Add(shape, ComponentModeName(mode), static_cast<double>(batches_.num_tokens()));
  }
}

LongRangeFigures LongRangeMeasurement::Measure(const EvaluatedModel& model, Collective& collective,
                                               const GroupDone& done) const {
  LongRangeFigures figures;
  figures.rows = RowsOf(prompts_);
  std::map<std::string, Beyond> beyond;
  for (const ComponentMode mode : kModes) {
    EvaluationOptions options = OptionsOf(plan_);
    options.mode = mode;
    const std::string name = ComponentModeName(mode);
    for (LongRangeRow& row : figures.rows) row.accuracy[name] = 0;
    const std::vector<SpanScore> scores = batches_.Score(model, options, collective, done);
    size_t at = 0;
    for (const LongRangePrompt& prompt : prompts_) {
      const auto row =
          std::find_if(figures.rows.begin(), figures.rows.end(),
                       [&prompt](const LongRangeRow& one) { return IsRow(one, prompt); });
      for (const LongRangeAnswer& answer : prompt.answers) {
        const double right = scores[at++].is_greedy ? 1 : 0;
        row->accuracy[name] += right / static_cast<double>(row->answers);
        if (answer.distance <= reach_) continue;
        if (prompt.kind != "passkey" && prompt.kind != "recall") continue;
        Beyond& of_kind = beyond[prompt.kind];
        if (mode == kModes.front()) ++of_kind.answers;
        of_kind.right[name] += right;
      }
    }
  }
  figures.recall = RecallOf(beyond, plan_.served_mode, reach_);
  return figures;
}

}  // namespace tandem
