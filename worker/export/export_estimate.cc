#include "worker/export/export_estimate.h"

#include <algorithm>
#include <filesystem>
#include <string>

#include "base/digest.h"
#include "base/files.h"
#include "worker/export/export.h"

namespace tandem {
namespace {

constexpr double kRehearsedBytes = 16e6;

double NumberOfElements(const TensorView& view) {
  double elements = 1;
  for (const int64_t extent : view.shape) elements *= static_cast<double>(extent);
  return elements;
}

double BaseBytes(const std::string& folder) {
  double bytes = 0;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    if (entry.is_regular_file(ignored)) bytes += static_cast<double>(entry.file_size(ignored));
  }
  return bytes;
}

struct SecondsPerByte {
  double write = 0, digest = 0;
};

// Swept away by the export itself if this process dies in between.
Result<SecondsPerByte> Rehearse(const Plan& plan, double bytes, const Clock& clock) {
  const std::string folder = JoinPath(AbsolutePath(plan.job_folder), "artifacts");
  const std::string path = JoinPath(folder, kExportAsidePrefix + std::string("rehearsal"));
  TANDEM_RETURN_IF_ERROR(MakeFolders(folder));
  const std::string content(static_cast<size_t>(std::min(bytes, kRehearsedBytes)), 'x');
  const int64_t start_ns = clock.MonotonicNs();
  TANDEM_RETURN_IF_ERROR(WriteFileDurably(path, content));
  const int64_t written_ns = clock.MonotonicNs();
  TANDEM_RETURN_IF_ERROR(Sha256OfFile(path).status());
  const int64_t digested_ns = clock.MonotonicNs();
  TANDEM_RETURN_IF_ERROR(RemoveTree(path));
  const double scale = 1e-9 / static_cast<double>(content.size());
  return SecondsPerByte{static_cast<double>(written_ns - start_ns) * scale,
                        static_cast<double>(digested_ns - written_ns) * scale};
}

}  // namespace

double ExportBytes(const Plan& plan, const Llama& model, const Parameters& parameters) {
  double elements = 0, conversion = 0, adapter = 0;
  for (const TensorView& view : ExpectedTensors(model.config())) elements += NumberOfElements(view);
  for (const auto& [name, tensor] : parameters.tensors()) {
    const bool is_lora = name.find(".lora_") != std::string::npos;
    (is_lora ? adapter : conversion) += static_cast<double>(tensor.nbytes());
  }
  return elements * (plan.export_dtype == "bfloat16" ? 2 : 4) +
         conversion * (plan.export_delta ? 2 : 1) + (plan.export_adapter ? adapter : 0);
}

Result<double> ExportSeconds(const Plan& plan, const Llama& model, const Parameters& parameters,
                             double seconds_per_token, const Clock& clock) {
  const double bytes = ExportBytes(plan, model, parameters);
  TANDEM_ASSIGN_OR_RETURN(const SecondsPerByte rate, Rehearse(plan, bytes, clock));
  return bytes * (rate.write + rate.digest) + BaseBytes(plan.model) * rate.digest +
         2 * static_cast<double>(kExportCheckTokens) * seconds_per_token;
}

}  // namespace tandem
