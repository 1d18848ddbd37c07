#include "worker/rank/component_losses.h"

#include <utility>

#include "base/files.h"
#include "worker/data/label_mask.h"
#include "worker/evaluate/token_mean.h"
#include "worker/rank/stage_factory.h"

namespace tandem {

WatchedText::WatchedText(std::unique_ptr<TokenShard> text, std::unique_ptr<TokenShard> label_mask,
                         int64_t T, int64_t most_sequences)
    : text_(std::move(text)),
      label_mask_(std::move(label_mask)),
      sequences_(*text_, label_mask_.get(), T, most_sequences) {}

Result<std::unique_ptr<WatchedText>> WatchedText::Open(const Plan& plan, const StagePlan& stage) {
  const std::string prefix = JoinPath(plan.data.tokens, "validation");
  TANDEM_ASSIGN_OR_RETURN(std::unique_ptr<TokenShard> text, TokenShard::Open(prefix));
  TANDEM_ASSIGN_OR_RETURN(std::unique_ptr<TokenShard> label_mask, OpenLabelMask(prefix, *text));
  const int64_t T = plan.data.sequence_length, tokens = text->num_tokens();
  std::unique_ptr<WatchedText> watched(
      new WatchedText(std::move(text), std::move(label_mask), T, stage.stop_sequences));
  if (watched->sequences().size() >= 1) return watched;
  return InvalidArgument("data.validation has " + std::to_string(tokens) +
                         " tokens, in which no sequence of data.sequence_length = " +
                         std::to_string(T) + " has a target; give more validation text");
}

ComponentLosses MeasureComponents(const Plan& plan, const Llama& model,
                                  const Parameters& parameters, const WatchedText& text,
                                  Collective& collective) {
  EvaluationOptions options = OptionsOf(plan);
  options.attention = TrainedFormOf(plan.attention);
  const std::vector<double> targets = text.sequences().Targets();
  const auto measure = [&](ComponentMode mode) {
    options.mode = mode;
    const TextFigures figures =
        MeasureText({model, parameters, model}, text.sequences(), options, collective, [] {});
    return TokenMean(figures.losses, targets);
  };
  return {measure(ComponentMode::kHybrid), measure(ComponentMode::kWindowOnly),
          measure(ComponentMode::kLinearOnly)};
}

}  // namespace tandem
