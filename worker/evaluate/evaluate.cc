#include "worker/evaluate/evaluate.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "base/clock.h"
#include "base/files.h"
#include "worker/data/json_file.h"
#include "worker/data/label_mask.h"
#include "worker/evaluate/bootstrap.h"
#include "worker/evaluate/passes.h"
#include "worker/evaluate/token_mean.h"
#include "worker/model/device.h"

namespace tandem {
namespace {

// The passes over the validation text: six modes, the probe, and the control that needs no
// training.
constexpr const char* kSwapPass = "state_swap";
constexpr const char* kTrainingFreePass = "training_free";
constexpr ComponentMode kComponents[] = {ComponentMode::kSoftmax,    ComponentMode::kHybrid,
                                         ComponentMode::kWindowOnly, ComponentMode::kLinearOnly,
                                         ComponentMode::kSinksOnly,  ComponentMode::kNone};
constexpr int64_t kTextPasses = 8;
constexpr ComponentMode kLengthModes[] = {ComponentMode::kSoftmax, ComponentMode::kHybrid,
                                          ComponentMode::kWindowOnly, ComponentMode::kLinearOnly};
// Kept per sequence in the report: what others pair with.
constexpr const char* kPairedModes[] = {"softmax", "hybrid", "window_only", "linear_only",
                                        kTrainingFreePass};

// At another length as many tokens as at the training's, as far as the text goes.
int64_t SequencesAt(const Plan& plan, int64_t length) {
  return std::max<int64_t>(1, plan.evaluate.sequences * plan.data.sequence_length / length);
}

// The digest that manifest.json promises for validation.bin; empty when there is none.
std::string ValidationDigest(const std::string& tokens) {
  const Result<nlohmann::json> root = ReadJsonObject(JoinPath(tokens, "manifest.json"));
  if (!root.ok()) return "";
  return TextOf(MemberOf(MemberOf(*root, "files"), "validation.bin"), "sha256");
}

// What is read from the tokens' folder besides the validation text.
struct EvaluationFiles {
  std::vector<LongRangePrompt> prompts;
  SuiteFile suites;
  std::unique_ptr<TokenShard> label_mask;
};

Result<EvaluationFiles> ReadFiles(const EvaluationInputs& inputs) {
  const Plan& plan = inputs.plan;
  const ModelConfig& config = inputs.model.config();
  const std::string& folder = plan.data.tokens;
  EvaluationFiles files;
  TANDEM_ASSIGN_OR_RETURN(files.prompts, ReadLongRange(plan, config.vocab_size));
  if (plan.evaluate.suites) {
    TANDEM_ASSIGN_OR_RETURN(files.suites, ReadSuites(folder, config.vocab_size));
  }
  TANDEM_ASSIGN_OR_RETURN(files.label_mask,
                          OpenLabelMask(JoinPath(folder, "validation"), inputs.validation));
  return files;
}

class Evaluator {
 public:
  Evaluator(const EvaluationInputs& inputs, const EvaluationFiles& files, Collective& collective,
            const EvaluationProgress& progress)
      : start_ms_(Clock::System().MonotonicMs()),
        inputs_(inputs),
        plan_(inputs.plan),
        files_(files),
        model_{inputs.model, inputs.parameters,
               inputs.reference != nullptr ? *inputs.reference : inputs.model},
        collective_(collective),
        progress_(progress),
        text_(inputs.validation, files.label_mask.get(), plan_.data.sequence_length,
              plan_.evaluate.sequences),
        targets_(text_.Targets()),
        long_range_(files.prompts, plan_, inputs.model.config().num_layers),
        suites_(files.suites, plan_),
        advance_([this] { Advance(); }) {
    for (const int64_t length : plan_.evaluate.lengths) {
      lengths_.emplace_back(inputs.validation, files.label_mask.get(), length,
                            SequencesAt(plan_, length));
    }
    const int64_t rank = collective.rank(), ranks = collective.size();
    total_ = kTextPasses * GroupsOfRank(text_.num_groups(), rank, ranks).size() +
             long_range_.GroupsOf(rank, ranks) + suites_.GroupsOf(rank, ranks);
    for (const TextSequences& text : lengths_) {
      total_ += static_cast<int64_t>(std::size(kLengthModes)) *
                GroupsOfRank(text.num_groups(), rank, ranks).size();
    }
  }

  Result<Evaluation> Run() {
    if (text_.size() < 2) {
      return InvalidArgument("the validation text has " + std::to_string(text_.num_chunks()) +
                             " sequences of " + std::to_string(text_.T()) +
                             " tokens; at least 2 are needed: give more validation text");
    }
    Evaluation evaluation;
    evaluation.sequences = text_.size();
    evaluation.sequence_length = text_.T();
    evaluation.notes = inputs_.notes;
    const std::map<std::string, std::vector<double>> losses = MeasureModes(&evaluation);
    FillComponents(losses, &evaluation);
    FillLosses(losses, &evaluation);
    evaluation.linear_active = LinearActive();
    evaluation.long_range = long_range_.Measure(model_, collective_, advance_);
    evaluation.suites = suites_.Measure(model_, collective_, advance_);
    evaluation.bos = files_.suites.bos;
    for (const TextSequences& text : lengths_) evaluation.lengths.push_back(MeasureLength(text));
    FillCost(&evaluation);
    CompareWithControls(&evaluation);
    FillOwnCost(&evaluation);
    return evaluation;
  }

  ForwardWork Work() const {
    CostShape shape{inputs_.model.config(), plan_.attention, text_.T()};
    ForwardWork work;
    const auto add_text = [&](const TextSequences& text, const std::string& mode) {
      shape.tokens = text.T();
      work.Add(shape, mode, static_cast<double>(text.size() * text.T()));
    };
    for (const ComponentMode mode : kComponents) add_text(text_, ComponentModeName(mode));
    add_text(text_, "hybrid");       // state_swap
    add_text(text_, "window_only");  // training_free
    for (const TextSequences& text : lengths_) {
      for (const ComponentMode mode : kLengthModes) add_text(text, ComponentModeName(mode));
    }
    long_range_.AddWork(shape, &work);
    suites_.AddWork(shape, &work);
    return work;
  }

 private:
  void Advance() {
    ++done_;
    if (progress_) progress_(done_, total_);
  }

  std::vector<double> Measure(const EvaluationOptions& options, Evaluation* evaluation) {
    TextFigures figures = MeasureText(model_, text_, options, collective_, advance_);
    if (options.linear_mass) evaluation->linear_mass = std::move(figures.linear_mass);
    return figures.losses;
  }

  std::map<std::string, std::vector<double>> MeasureModes(Evaluation* evaluation) {
    std::map<std::string, std::vector<double>> losses;
    const int64_t from_row = 2 * plan_.attention.window_size;
    for (const ComponentMode mode : kComponents) {
      EvaluationOptions options = OptionsOf(plan_);
      options.mode = mode;
      options.linear_mass = mode == ComponentMode::kHybrid && from_row < text_.T();
      options.mass_from_row = from_row;
      losses[ComponentModeName(mode)] = Measure(options, evaluation);
    }
    EvaluationOptions swap = OptionsOf(plan_);
    swap.state_swap = true;
    losses[kSwapPass] = Measure(swap, evaluation);
    losses[kTrainingFreePass] = Measure(TrainingFreeOptions(plan_), evaluation);
    return losses;
  }

  // Row i predicts token i + 1.
  double LinearActive() const {
    const int64_t first_row = FirstLinearRow(plan_.attention, text_.T()), rows = text_.T() - 1;
    std::vector<double> scored(static_cast<size_t>(rows));
    double all = 0, active = 0;
    for (int64_t sequence = 0; sequence < text_.size(); ++sequence) {
      text_.ReadScored(sequence, scored.data());
      for (int64_t row = 0; row < rows; ++row) {
        all += scored[static_cast<size_t>(row)];
        if (row >= first_row) active += scored[static_cast<size_t>(row)];
      }
    }
    return active / all;
  }

  void FillComponents(const std::map<std::string, std::vector<double>>& losses,
                      Evaluation* evaluation) const {
    VerdictFigures figures;
    for (const ComponentMode mode : kComponents) {
      const std::vector<double>& values = losses.at(ComponentModeName(mode));
      const double mean = TokenMean(values, targets_);
      figures.losses[ComponentModeName(mode)] = mean;
      evaluation->components[ComponentModeName(mode)] = {mean, std::exp(mean),
                                                         TokenMeanError(values, targets_)};
    }
    figures.state_swap_loss = TokenMean(losses.at(kSwapPass), targets_);
    std::vector<double> differences;
    const auto& window = losses.at("window_only");
    const auto& hybrid = losses.at("hybrid");
    for (size_t i = 0; i < hybrid.size(); ++i) differences.push_back(window[i] - hybrid[i]);
    const Interval interval =
        BootstrapInterval(differences, targets_, plan_.evaluate.bootstrap, plan_.seed);
    figures.linear_delta_low = evaluation->linear_delta_low = interval.low;
    figures.linear_delta_high = evaluation->linear_delta_high = interval.high;
    evaluation->verdict = Judge(figures);
  }

  void FillLosses(const std::map<std::string, std::vector<double>>& losses,
                  Evaluation* evaluation) const {
    for (const char* mode : kPairedModes) {
      evaluation->losses.per_sequence[mode] = losses.at(mode);
    }
    evaluation->losses.targets = targets_;
    evaluation->losses.sequence_length = text_.T();
    evaluation->losses.validation_sha256 = ValidationDigest(plan_.data.tokens);
  }

  LengthFigures MeasureLength(const TextSequences& text) {
    LengthFigures figures;
    figures.length = text.T();
    figures.sequences = text.size();
    if (text.size() == 0) return figures;
    const std::vector<double> targets = text.Targets();
    for (const ComponentMode mode : kLengthModes) {
      EvaluationOptions options = OptionsOf(plan_);
      options.mode = mode;
      figures.losses[ComponentModeName(mode)] =
          TokenMean(MeasureText(model_, text, options, collective_, advance_).losses, targets);
    }
    return figures;
  }

  double LargestOfRanks(double mine) const {
    return std::ranges::max(collective_.AllGather(std::vector<double>{mine}));
  }

  void FillCost(Evaluation* evaluation) const {
    evaluation->cost = TrainingCost(plan_.job_folder);
    evaluation->cost.peak_memory_bytes = LargestOfRanks(inputs_.memory.OfProcess());
    evaluation->device_bytes =
        LargestOfRanks(static_cast<double>(PeakDeviceBytes(inputs_.model.device())));
  }

  // The row of this stage, and what had been expected of all.
  void FillOwnCost(Evaluation* evaluation) const {
    evaluation->seconds = static_cast<double>(Clock::System().MonotonicMs() - start_ms_) / 1000;
    StageCost own;
    own.stage = "evaluate";
    own.stage_index = static_cast<int64_t>(plan_.stages.size());
    own.tokens = Work().tokens;
    own.seconds = evaluation->seconds;
    const ComputeDevice& device = inputs_.model.device();
    own.peak_memory_bytes = device.device.is_cpu() ? inputs_.memory.OfStage()
                                                   : static_cast<double>(PeakDeviceBytes(device));
    evaluation->cost.stages.push_back(own);
    if (auto prepared = PrepareCost(plan_.job_folder)) {
      evaluation->cost.stages.insert(evaluation->cost.stages.begin(), std::move(*prepared));
    }
    AddEstimates(ReadEstimate(plan_.job_folder), &evaluation->cost);
  }

  void CompareWithControls(Evaluation* evaluation) const {
    evaluation->beats_window =
        CompareWithWindows({evaluation->losses, plan_.served_mode, plan_.evaluate.control,
                            evaluation->cost.tokens, plan_.evaluate.bootstrap, plan_.seed});
  }

  const int64_t start_ms_;
  const EvaluationInputs& inputs_;
  const Plan& plan_;
  const EvaluationFiles& files_;
  const EvaluatedModel model_;
  Collective& collective_;
  const EvaluationProgress& progress_;
  const TextSequences text_;
  const std::vector<double> targets_;  // of each of its sequences
  std::vector<TextSequences> lengths_;
  const LongRangeMeasurement long_range_;
  const SuiteMeasurement suites_;
  const GroupDone advance_;
  int64_t done_ = 0, total_ = 0;
};

}  // namespace

Result<ForwardWork> PlannedWork(const EvaluationInputs& inputs) {
  TANDEM_ASSIGN_OR_RETURN(const EvaluationFiles files, ReadFiles(inputs));
  const auto alone = MakeSoloCollective();
  return Evaluator(inputs, files, *alone, {}).Work();
}

Result<Evaluation> Evaluate(const EvaluationInputs& inputs, Collective& collective,
                            const EvaluationProgress& progress) {
  TANDEM_ASSIGN_OR_RETURN(const EvaluationFiles files, ReadFiles(inputs));
  return Evaluator(inputs, files, collective, progress).Run();
}

}  // namespace tandem
