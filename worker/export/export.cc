#include "worker/export/export.h"

#include <ATen/ops/abs.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/max.h>
#include <ATen/ops/sub.h>
#include <unistd.h>

#include <algorithm>

#include "base/digest.h"
#include "base/files.h"
#include "worker/export/directory_files.h"
#include "worker/export/weights.h"
#include "worker/model/evaluation_forward.h"
#include "worker/model/plan_form.h"
#include "worker/model/safetensors.h"

namespace tandem {
namespace {

// fp32 sums in another order; the promise to transformers is the same number.
constexpr double kMergeTolerance = 1e-4;

EvaluationOptions OptionsOf(const Plan& plan) {
  EvaluationOptions options;
  const auto mode = ComponentModeFromName(plan.served_mode);
  TANDEM_CHECK_MSG(mode.ok(), mode.status().message());  // the plan's check let it through
  options.mode = *mode;
  options.attention = AttentionFormOf(plan.attention);
  return options;
}

// What a crash in an earlier call left.
Status SweepAside(const std::string& artifacts) {
  TANDEM_ASSIGN_OR_RETURN(const auto names, ListFolder(artifacts));
  for (const std::string& name : names) {
    if (!name.starts_with(kExportAsidePrefix)) continue;
    TANDEM_RETURN_IF_ERROR(RemoveTree(JoinPath(artifacts, name)));
  }
  return Status::Ok();
}

// Merged weights, and the parts by themselves where the plan asks for them.
Result<int64_t> WriteTensors(const ExportInputs& inputs, const std::string& folder) {
  const Plan& plan = inputs.plan;
  const int64_t max_bytes =
      inputs.max_shard_bytes > 0 ? inputs.max_shard_bytes : plan.export_max_shard_mb * 1'000'000;
  if (plan.export_adapter) {
    const std::string base = plan.model.substr(plan.model.find_last_of('/') + 1);
    TANDEM_RETURN_IF_ERROR(WriteAdapter(inputs.parameters, base, folder));
  }
  if (plan.export_delta) TANDEM_RETURN_IF_ERROR(WriteDelta(inputs.parameters, folder));
  return WriteExportWeights(inputs.model, inputs.parameters, plan.export_dtype, max_bytes, folder);
}

Status WriteConfig(const Plan& plan, const ModelConfig& config, const std::string& folder) {
  TANDEM_ASSIGN_OR_RETURN(const std::string base,
                          ReadFile(JoinPath(plan.model, "config.json"), 1 << 20));
  TANDEM_ASSIGN_OR_RETURN(const std::string text, ExportConfigJson(base, config, plan));
  return WriteFileDurably(JoinPath(folder, "config.json"), text);
}

at::Tensor CheckIds(const TokenShard& validation) {
  const int64_t count = std::min(kExportCheckTokens, validation.num_tokens());
  at::Tensor ids = at::empty({1, count}, at::kLong);
  validation.Read(0, count, ids.mutable_data_ptr<int64_t>());
  return ids;
}

TensorView ViewOf(const std::string& name, const std::string& dtype, const at::Tensor& tensor) {
  return {name, dtype, tensor.sizes().vec(), static_cast<const std::byte*>(tensor.const_data_ptr()),
          static_cast<int64_t>(tensor.nbytes())};
}

// Reads the files back, runs them, compares with the trained model, and writes what transformers
// must reproduce.
Status CheckExport(const ExportInputs& inputs, const std::string& folder,
                   const std::string& artifacts) {
  if (inputs.validation.num_tokens() < 2) {
    return InvalidArgument("the validation text has " +
                           std::to_string(inputs.validation.num_tokens()) +
                           " tokens; the export's check needs 2 or more");
  }
  TANDEM_ASSIGN_OR_RETURN(
      const ExportedWeights exported,
      ReadExportWeights(folder, inputs.model.config(), inputs.parameters.options()));
  const at::Tensor ids = CheckIds(inputs.validation);
  const EvaluationOptions options = OptionsOf(inputs.plan);
  const at::Tensor logits =
      EvaluateLogits(*exported.model, *exported.parameters, ids, options).contiguous();
  const bool is_exact = inputs.plan.export_dtype == "float32" &&
                        inputs.model.device().base_type == at::kFloat;  // else both round
  if (is_exact) {
    const at::Tensor trained = EvaluateLogits(inputs.model, inputs.parameters, ids, options);
    const double worst = at::max(at::abs(at::sub(logits, trained))).item().toDouble();
    if (!(worst <= kMergeTolerance)) {
      return Internal("the exported weights give logits that differ by " + std::to_string(worst) +
                      " from the trained model's; at most " + std::to_string(kMergeTolerance) +
                      " is allowed");
    }
  }
  const std::string path = JoinPath(artifacts, "check.safetensors");
  const std::string aside = JoinPath(artifacts, std::string(kExportAsidePrefix) + "check");
  TANDEM_RETURN_IF_ERROR(
      WriteSafetensors(aside, {ViewOf("ids", "I64", ids), ViewOf("logits", "F32", logits)}));
  return RenameDurably(aside, path);
}

// The old directory goes only when the new one is whole; a crash between the renames is mended by
// exporting again.
Status Publish(const std::string& aside, const std::string& directory,
               const std::string& artifacts) {
  const std::string old = JoinPath(artifacts, std::string(kExportAsidePrefix) + "old");
  if (PathExists(directory)) TANDEM_RETURN_IF_ERROR(RenameDurably(directory, old));
  TANDEM_RETURN_IF_ERROR(RenameDurably(aside, directory));
  return RemoveTree(old);
}

}  // namespace

Result<ExportedModel> ExportModel(const ExportInputs& inputs) {
  const Plan& plan = inputs.plan;
  const std::string artifacts = AbsolutePath(JoinPath(plan.job_folder, "artifacts"));
  TANDEM_RETURN_IF_ERROR(MakeFolders(artifacts));
  TANDEM_RETURN_IF_ERROR(SweepAside(artifacts));
  const std::string aside =
      JoinPath(artifacts, std::string(kExportAsidePrefix) + std::to_string(getpid()));
  TANDEM_RETURN_IF_ERROR(MakeFolders(aside));

  ExportedModel exported;
  exported.directory = JoinPath(artifacts, "model");
  TANDEM_ASSIGN_OR_RETURN(exported.bytes, WriteTensors(inputs, aside));
  TANDEM_RETURN_IF_ERROR(WriteConfig(plan, inputs.model.config(), aside));
  TANDEM_RETURN_IF_ERROR(CopyBaseFiles(plan, aside));
  TANDEM_ASSIGN_OR_RETURN(const std::string card, ModelCard(plan, inputs.report_json));
  TANDEM_RETURN_IF_ERROR(WriteFileDurably(JoinPath(aside, "README.md"), card));
  TANDEM_RETURN_IF_ERROR(CheckExport(inputs, aside, artifacts));
  TANDEM_ASSIGN_OR_RETURN(const std::string manifest,
                          ExportManifestJson(plan, inputs.report_json, aside));
  TANDEM_RETURN_IF_ERROR(WriteFileDurably(JoinPath(aside, "manifest.json"), manifest));
  TANDEM_RETURN_IF_ERROR(SyncPath(aside));
  TANDEM_RETURN_IF_ERROR(Publish(aside, exported.directory, artifacts));
  exported.manifest_sha256 = Sha256Hex(manifest);
  return exported;
}

}  // namespace tandem
