#include "worker/evaluate/evaluate.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>

#include "base/clock.h"
#include "worker/evaluate/passkey.h"
#include "worker/model/evaluation_forward.h"
#include "worker/model/plan_form.h"

namespace tandem {
namespace {

// The passes over the validation text: six modes and the probe.
struct Pass {
  const char* name;
  ComponentMode mode;
  bool state_swap = false;
};
constexpr const char* kSwapPass = "state_swap";
constexpr Pass kPasses[] = {
    {"softmax", ComponentMode::kSoftmax},        {"hybrid", ComponentMode::kHybrid},
    {"window_only", ComponentMode::kWindowOnly}, {"linear_only", ComponentMode::kLinearOnly},
    {"sinks_only", ComponentMode::kSinksOnly},   {"none", ComponentMode::kNone},
    {kSwapPass, ComponentMode::kHybrid, true}};

// Sequences of a group go through the model together. Fixed by the length alone: the partner of the
// probe state_swap must not depend on the ranks. Short sequences make wider groups, about 2,048
// tokens.
int64_t GroupSize(int64_t T) {
  return std::clamp<int64_t>(2048 / T, 2, 64);
}

class Evaluator {
 public:
  Evaluator(const EvaluationInputs& inputs, Collective& collective,
            const EvaluationProgress& progress)
      : inputs_(inputs), collective_(collective), progress_(progress) {
    T_ = inputs.plan.data.sequence_length;
    num_chunks_ = inputs.validation.NumChunks(T_);
    num_sequences_ = std::min(inputs.plan.evaluate.sequences, num_chunks_);
    group_ = GroupSize(T_);
    num_groups_ = (num_sequences_ + group_ - 1) / group_;
    range_ = GroupsOfRank(num_groups_, collective.rank(), collective.size());
    const auto prompts = static_cast<int64_t>(inputs.passkey.size());
    const GroupRange asked = GroupsOfRank((prompts + kPasskeyGroup - 1) / kPasskeyGroup,
                                          collective.rank(), collective.size());
    total_ = static_cast<int64_t>(std::size(kPasses)) * (range_.last - range_.first) +
             4 * (asked.last - asked.first);
  }

  Result<Evaluation> Run() {
    if (num_sequences_ < 2) {
      return InvalidArgument("the validation text has " + std::to_string(num_chunks_) +
                             " sequences of " + std::to_string(T_) +
                             " tokens; at least 2 are needed: give more validation text");
    }
    Evaluation evaluation;
    evaluation.sequences = num_sequences_;
    evaluation.sequence_length = T_;
    std::map<std::string, std::vector<double>> losses;
    for (const Pass& pass : kPasses) losses[pass.name] = MeasurePass(pass, &evaluation);
    FillComponents(losses, &evaluation);
    evaluation.linear_active = LinearActive();
    evaluation.passkey = MeasurePasskey(inputs_, BaseOptions(), collective_, [this] { Advance(); });
    return evaluation;
  }

 private:
  EvaluationOptions BaseOptions() const {
    EvaluationOptions options;
    options.attention = AttentionFormOf(inputs_.plan.attention);
    options.evaluate_sinks = inputs_.plan.evaluate.sinks;
    return options;
  }

  void Advance() {
    ++done_;
    if (progress_) progress_(done_, total_);
  }

  // Sequence i of the evaluation: chunks evenly spread over the text.
  void ReadSequence(int64_t i, int64_t* ids) const {
    inputs_.validation.ReadChunk(i * num_chunks_ / num_sequences_, T_, ids);
  }

  // A last group of one gets the first sequence as its partner.
  at::Tensor ReadGroup(int64_t first, int64_t count) const {
    const int64_t width = std::max<int64_t>(count, 2);
    at::Tensor ids = at::empty({width, T_}, at::kLong);
    int64_t* values = ids.mutable_data_ptr<int64_t>();
    for (int64_t i = 0; i < count; ++i) ReadSequence(first + i, values + i * T_);
    if (count == 1) ReadSequence(0, values + T_);
    return ids;
  }

  // Mean loss of every sequence, in order, on every rank. The pass `hybrid` fills linear_mass on
  // its way.
  std::vector<double> MeasurePass(const Pass& pass, Evaluation* evaluation) {
    EvaluationOptions options = BaseOptions();
    options.mode = pass.mode;
    options.state_swap = pass.state_swap;
    const int64_t from_row = 2 * inputs_.plan.attention.window_size;
    options.linear_mass = pass.mode == ComponentMode::kHybrid && !pass.state_swap && from_row < T_;
    options.mass_from_row = from_row;
    std::vector<double> means, mass;
    for (int64_t group = range_.first; group < range_.last; ++group) {
      const int64_t first = group * group_, count = std::min(group_, num_sequences_ - first);
      const EvaluationResult result =
          EvaluateSequences(inputs_.model, inputs_.parameters, ReadGroup(first, count), options);
      const at::Tensor of_sequence = result.losses.mean({1}, false, at::kDouble).contiguous();
      const double* values = of_sequence.const_data_ptr<double>();
      means.insert(means.end(), values, values + count);
      if (options.linear_mass) {
        const at::Tensor shares = result.linear_mass_MH.contiguous();
        const double* share = shares.const_data_ptr<double>();
        for (int64_t i = 0; i < shares.numel(); ++i) {
          mass.push_back(share[i] * static_cast<double>(count));
        }
      }
      Advance();
    }
    if (options.linear_mass) FillMass(collective_.AllGather(mass), evaluation);
    const std::vector<double> all = collective_.AllGather(means);
    TANDEM_CHECK(static_cast<int64_t>(all.size()) == num_sequences_);
    return all;
  }

  // Groups' sums, in order -> the mean per layer and head.
  void FillMass(const std::vector<double>& sums, Evaluation* evaluation) const {
    const auto layers = static_cast<size_t>(inputs_.model.config().num_layers);
    const auto heads = static_cast<size_t>(inputs_.model.config().num_heads);
    evaluation->linear_mass.assign(layers, std::vector<double>(heads, 0));
    for (size_t i = 0; i < sums.size(); ++i) {
      const size_t place = i % (layers * heads);
      evaluation->linear_mass[place / heads][place % heads] +=
          sums[i] / static_cast<double>(num_sequences_);
    }
  }

  // Row i predicts token i + 1, i = 0 ... T-2; its linear branch has keys from row w + s on.
  double LinearActive() const {
    const AttentionPlan& attention = inputs_.plan.attention;
    if (attention.linear_span == "all") return 1;
    const int64_t first = attention.window_size + attention.window_sinks;
    const int64_t active = std::max<int64_t>(0, T_ - 1 - first);
    return static_cast<double>(active) / static_cast<double>(T_ - 1);
  }

  void FillComponents(const std::map<std::string, std::vector<double>>& losses,
                      Evaluation* evaluation) const {
    VerdictFigures figures;
    const auto count = static_cast<double>(num_sequences_);
    for (const auto& [name, values] : losses) {
      double sum = 0, squares = 0;
      for (const double value : values) sum += value;
      const double mean = sum / count;
      for (const double value : values) squares += (value - mean) * (value - mean);
      if (name == kSwapPass) {
        figures.state_swap_loss = mean;
        continue;
      }
      figures.losses[name] = mean;
      evaluation->components[name] = {mean, std::exp(mean),
                                      std::sqrt(squares / (count - 1) / count)};
    }
    std::vector<double> differences;
    const auto& window = losses.at("window_only");
    const auto& hybrid = losses.at("hybrid");
    for (size_t i = 0; i < hybrid.size(); ++i) differences.push_back(window[i] - hybrid[i]);
    const Interval interval =
        BootstrapInterval(differences, inputs_.plan.evaluate.bootstrap, inputs_.plan.seed);
    figures.linear_delta_low = evaluation->linear_delta_low = interval.low;
    figures.linear_delta_high = evaluation->linear_delta_high = interval.high;
    evaluation->verdict = Judge(figures);
  }

  const EvaluationInputs& inputs_;
  Collective& collective_;
  const EvaluationProgress& progress_;
  int64_t T_ = 0, num_chunks_ = 0, num_sequences_ = 0, group_ = 0, num_groups_ = 0;
  GroupRange range_;
  int64_t done_ = 0, total_ = 0;
};

}  // namespace

Result<Evaluation> Evaluate(const EvaluationInputs& inputs, Collective& collective,
                            const EvaluationProgress& progress) {
  const int64_t start_ms = Clock::System().MonotonicMs();
  Result<Evaluation> evaluation = Evaluator(inputs, collective, progress).Run();
  if (!evaluation.ok()) return evaluation;
  evaluation->seconds = static_cast<double>(Clock::System().MonotonicMs() - start_ms) / 1000;
  return evaluation;
}

}  // namespace tandem
