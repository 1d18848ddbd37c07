#include "worker/evaluate/passes.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <numeric>

#include "worker/data/label_mask.h"
#include "worker/model/plan_form.h"

namespace tandem {
namespace {

// Sequences of a group go through the model together. Fixed by the length alone: the partner of the
// probe state_swap must not depend on the ranks. Short sequences make wider groups.
int64_t GroupSize(int64_t T) {
  return std::clamp<int64_t>(kGroupTokens / T, 2, kGroupSequences);
}

// A last group of one gets the first sequence as its partner.
at::Tensor ReadGroup(const TextSequences& text, int64_t first, int64_t count) {
  const int64_t width = std::max<int64_t>(count, 2), T = text.T();
  at::Tensor ids = at::empty({width, T}, at::kLong);
  int64_t* values = ids.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < count; ++i) text.Read(first + i, values + i * T);
  if (count == 1) text.Read(0, values + T);
  return ids;
}

// Mean of the scored targets of each of the group's `count` sequences.
void AppendMeans(const TextSequences& text, const at::Tensor& losses_BT1, int64_t first,
                 int64_t count, std::vector<double>* means) {
  const at::Tensor losses = losses_BT1.to(at::kCPU, at::kDouble).contiguous();
  const double* values = losses.const_data_ptr<double>();
  const int64_t targets = text.T() - 1;
  std::vector<double> scored(static_cast<size_t>(targets));
  for (int64_t i = 0; i < count; ++i, values += targets) {
    text.ReadScored(first + i, scored.data());
    double sum = 0, number = 0;
    for (int64_t t = 0; t < targets; ++t) {
      if (scored[static_cast<size_t>(t)] == 0) continue;
      sum += values[t];
      number += 1;
    }
    means->push_back(sum / number);
  }
}

void AppendMass(const at::Tensor& mass_MH, int64_t count, std::vector<double>* sums) {
  const at::Tensor shares = mass_MH.to(at::kCPU).contiguous();
  const double* share = shares.const_data_ptr<double>();
  for (int64_t i = 0; i < shares.numel(); ++i) {
    sums->push_back(share[i] * static_cast<double>(count));
  }
}

// Groups' sums, in order -> the mean per layer and head.
std::vector<std::vector<double>> MeanMass(const std::vector<double>& sums,
                                          const ModelConfig& config, int64_t sequences) {
  const auto layers = static_cast<size_t>(config.num_layers);
  const auto heads = static_cast<size_t>(config.num_heads);
  std::vector<std::vector<double>> mass(layers, std::vector<double>(heads, 0));
  for (size_t i = 0; i < sums.size(); ++i) {
    const size_t place = i % (layers * heads);
    mass[place / heads][place % heads] += sums[i] / static_cast<double>(sequences);
  }
  return mass;
}

}  // namespace

GroupRange GroupsOfRank(int64_t count, int64_t rank, int64_t ranks) {
  return {count * rank / ranks, count * (rank + 1) / ranks};
}

EvaluationOptions OptionsOf(const Plan& plan) {
  EvaluationOptions options;
  options.attention = AttentionFormOf(plan.attention);
  options.evaluate_sinks = plan.evaluate.sinks;
  return options;
}

EvaluationOptions TrainingFreeOptions(const Plan& plan) {
  EvaluationOptions options = OptionsOf(plan);
  options.mode = ComponentMode::kWindowOnly;
  options.attention.window_kind = WindowKind::kSliding;
  options.attention.sinks = kTrainingFreeSinks;
  options.attention.retained.clear();
  options.base_weights = true;
  return options;
}

int64_t FirstLinearRow(const AttentionPlan& attention, int64_t num_tokens) {
  const AttentionForm form = AttentionFormOf(attention);
  if (form.span == Span::kAll || form.HasDefect(num_tokens)) return 0;
  if (form.window_kind == WindowKind::kSliding) return form.window + form.sinks;
  // Block b reads blocks b - 1 and b: the first with keys before them that are no sinks.
  const int64_t padding = form.BlockPadding(num_tokens);
  return ((form.sinks + padding) / form.window + 2) * form.window - padding;
}

EvaluationResult RunPass(const EvaluatedModel& model, const at::Tensor& ids_BT,
                         const EvaluationOptions& options) {
  const bool is_base = options.mode == ComponentMode::kSoftmax || options.base_weights;
  return EvaluateSequences(is_base ? model.reference : model.model, model.parameters, ids_BT,
                           options);
}

TextSequences::TextSequences(const TokenShard& text, const TokenShard* label_mask, int64_t T,
                             int64_t most_sequences)
    : text_(text), label_mask_(label_mask), T_(T), num_chunks_(text.NumChunks(T)) {
  if (label_mask_ != nullptr) {
    labelled_ = LabelledChunks(*label_mask_, T);
    num_chunks_ = static_cast<int64_t>(labelled_.size());
  }
  size_ = std::min(most_sequences, num_chunks_);
  group_size_ = GroupSize(T);
}

int64_t TextSequences::ChunkOf(int64_t sequence) const {
  const int64_t place = sequence * num_chunks_ / size_;
  return label_mask_ == nullptr ? place : labelled_[static_cast<size_t>(place)];
}

void TextSequences::Read(int64_t sequence, int64_t* ids) const {
  text_.ReadChunk(ChunkOf(sequence), T_, ids);
}

std::vector<int64_t> TextSequences::DocumentStarts(int64_t sequence) const {
  return text_.DocumentStarts(ChunkOf(sequence) * T_, T_);
}

void TextSequences::ReadScored(int64_t sequence, double* scored) const {
  std::vector<int64_t> labels(static_cast<size_t>(T_), 1);
  if (label_mask_ != nullptr) label_mask_->ReadChunk(ChunkOf(sequence), T_, labels.data());
  for (int64_t t = 0; t + 1 < T_; ++t) {
    scored[t] = static_cast<double>(labels[static_cast<size_t>(t) + 1]);
  }
}

std::vector<double> TextSequences::Targets() const {
  std::vector<double> targets, scored(static_cast<size_t>(T_ - 1));
  for (int64_t sequence = 0; sequence < size_; ++sequence) {
    ReadScored(sequence, scored.data());
    targets.push_back(std::accumulate(scored.begin(), scored.end(), 0.0));
  }
  return targets;
}

TextFigures MeasureText(const EvaluatedModel& model, const TextSequences& text,
                        const EvaluationOptions& options, Collective& collective,
                        const GroupDone& done) {
  const GroupRange range = GroupsOfRank(text.num_groups(), collective.rank(), collective.size());
  std::vector<double> means, mass;
  for (int64_t group = range.first; group < range.last; ++group) {
    const int64_t first = group * text.group_size();
    const int64_t count = std::min(text.group_size(), text.size() - first);
    const EvaluationResult result = RunPass(model, ReadGroup(text, first, count), options);
    AppendMeans(text, result.losses, first, count, &means);
    if (options.linear_mass) AppendMass(result.linear_mass_MH, count, &mass);
    done();
  }
  TextFigures figures;
  if (options.linear_mass) {
    figures.linear_mass = MeanMass(collective.AllGather(mass), model.model.config(), text.size());
  }
  figures.losses = collective.AllGather(means);
  TANDEM_CHECK(static_cast<int64_t>(figures.losses.size()) == text.size());
  return figures;
}

}  // namespace tandem
