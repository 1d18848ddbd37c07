#include "worker/evaluate/passkey.h"

#include <ATen/ops/empty.h>

#include <algorithm>

namespace tandem {
namespace {

constexpr ComponentMode kPasskeyModes[] = {ComponentMode::kSoftmax, ComponentMode::kHybrid,
                                           ComponentMode::kWindowOnly, ComponentMode::kLinearOnly};

at::Tensor IdsOf(const std::vector<PasskeyPrompt>& prompts, int64_t first, int64_t count) {
  const auto length = static_cast<int64_t>(prompts.front().ids.size());
  at::Tensor ids = at::empty({count, length}, at::kLong);
  for (int64_t i = 0; i < count; ++i) {
    const auto& from = prompts[static_cast<size_t>(first + i)].ids;
    std::copy(from.begin(), from.end(), ids.mutable_data_ptr<int64_t>() + i * length);
  }
  return ids;
}

// predicted[i] is the guess for token i + 1.
bool IsAnswered(const PasskeyPrompt& prompt, const int64_t* predicted) {
  for (int64_t i = prompt.answer_start; i < prompt.answer_start + prompt.answer_length; ++i) {
    if (predicted[i - 1] != prompt.ids[static_cast<size_t>(i)]) return false;
  }
  return true;
}

// 1 or 0 per prompt of this rank's groups.
std::vector<double> AnswersOfRank(const EvaluationInputs& inputs, const EvaluationOptions& options,
                                  GroupRange range, const std::function<void()>& advance) {
  const auto total = static_cast<int64_t>(inputs.passkey.size());
  std::vector<double> answers;
  for (int64_t group = range.first; group < range.last; ++group) {
    const int64_t first = group * kPasskeyGroup;
    const int64_t count = std::min(kPasskeyGroup, total - first);
    const EvaluationResult result = EvaluateSequences(inputs.model, inputs.parameters,
                                                      IdsOf(inputs.passkey, first, count), options);
    const at::Tensor predicted = result.predicted_BT.contiguous();
    const int64_t* values = predicted.const_data_ptr<int64_t>();
    for (int64_t i = 0; i < count; ++i) {
      const PasskeyPrompt& prompt = inputs.passkey[static_cast<size_t>(first + i)];
      answers.push_back(IsAnswered(prompt, values + i * predicted.size(1)) ? 1 : 0);
    }
    advance();
  }
  return answers;
}

}  // namespace

GroupRange GroupsOfRank(int64_t count, int64_t rank, int64_t ranks) {
  return {count * rank / ranks, count * (rank + 1) / ranks};
}

std::vector<PasskeyFigures> MeasurePasskey(const EvaluationInputs& inputs,
                                           const EvaluationOptions& options, Collective& collective,
                                           const std::function<void()>& advance) {
  std::map<int64_t, PasskeyFigures> by_distance;
  for (const PasskeyPrompt& prompt : inputs.passkey) {
    PasskeyFigures& figures = by_distance[prompt.distance];
    figures.distance = prompt.distance;
    ++figures.prompts;
  }
  const auto total = static_cast<int64_t>(inputs.passkey.size());
  const GroupRange range = GroupsOfRank((total + kPasskeyGroup - 1) / kPasskeyGroup,
                                        collective.rank(), collective.size());
  for (const ComponentMode mode : kPasskeyModes) {
    EvaluationOptions of_mode = options;
    of_mode.mode = mode;
    of_mode.predictions = true;
    const std::vector<double> answers =
        collective.AllGather(AnswersOfRank(inputs, of_mode, range, advance));
    TANDEM_CHECK(answers.size() == inputs.passkey.size());
    for (size_t i = 0; i < answers.size(); ++i) {
      PasskeyFigures& figures = by_distance[inputs.passkey[i].distance];
      figures.accuracy[ComponentModeName(mode)] +=
          answers[i] / static_cast<double>(figures.prompts);
    }
  }
  std::vector<PasskeyFigures> sorted;
  for (const auto& [distance, figures] : by_distance) sorted.push_back(figures);
  return sorted;
}

}  // namespace tandem
