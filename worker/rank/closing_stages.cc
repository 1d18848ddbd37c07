#include "worker/rank/closing_stages.h"

#include <memory>
#include <utility>

#include "base/clock.h"
#include "base/digest.h"
#include "base/files.h"
#include "worker/evaluate/cost.h"
#include "worker/evaluate/evaluate.h"
#include "worker/export/export.h"
#include "worker/rank/failure.h"

namespace tandem {
namespace {

std::unique_ptr<TokenShard> OpenValidation(const Plan& plan) {
  return ValueOr(TokenShard::Open(JoinPath(plan.data.tokens, "validation")), RequireData);
}

std::string ReportPath(const Plan& plan) {
  return JoinPath(plan.job_folder, "artifacts/report.json");
}

}  // namespace

ClosingResult RunEvaluate(const ClosingInputs& inputs,
                          const std::function<void(int64_t, int64_t)>& progress) {
  const std::unique_ptr<TokenShard> validation = OpenValidation(inputs.plan);
  const EvaluationInputs evaluation{inputs.plan,      inputs.model, inputs.parameters, *validation,
                                    inputs.reference, inputs.notes, inputs.memory};
  const Evaluation result = ValueOr(Evaluate(evaluation, inputs.collective, progress), RequireData);
  if (inputs.collective.rank() != 0) return {};
  const std::string path = ValueOr(WriteEvaluation(inputs.plan, result), RequireStorage);
  return {path, ValueOr(Sha256OfFile(path), RequireStorage)};
}

ClosingResult RunExport(const ClosingInputs& inputs) {
  PeakMemory memory;
  memory.StartStage();
  const int64_t start_ns = Clock::System().MonotonicNs();
  const std::unique_ptr<TokenShard> validation = OpenValidation(inputs.plan);
  ExportInputs exported{inputs.plan, inputs.model, inputs.parameters, *validation,
                        ValueOr(ReadFile(ReportPath(inputs.plan)), RequireStorage)};
  const ExportedModel model = ValueOr(ExportModel(exported), RequireStorage);
  StageCost cost;
  cost.stage = "export";
  cost.stage_index = static_cast<int64_t>(inputs.plan.stages.size()) + 1;
  cost.seconds = static_cast<double>(Clock::System().MonotonicNs() - start_ns) * 1e-9;
  // On a GPU memory means the device's, and the export needs none of it.
  if (inputs.plan.device == "cpu") cost.peak_memory_bytes = memory.OfStage();
  RequireStorage(WriteExportCost(inputs.plan.job_folder, cost));
  return {model.directory, model.manifest_sha256};
}

}  // namespace tandem
