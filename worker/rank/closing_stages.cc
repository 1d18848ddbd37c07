#include "worker/rank/closing_stages.h"

#include <memory>
#include <utility>

#include "base/digest.h"
#include "base/files.h"
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
  const std::unique_ptr<TokenShard> validation = OpenValidation(inputs.plan);
  ExportInputs exported{inputs.plan, inputs.model, inputs.parameters, *validation,
                        ValueOr(ReadFile(ReportPath(inputs.plan)), RequireStorage)};
  const ExportedModel model = ValueOr(ExportModel(exported), RequireStorage);
  return {model.directory, model.manifest_sha256};
}

}  // namespace tandem
