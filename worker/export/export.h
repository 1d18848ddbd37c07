// Export: the converted model as a Hugging Face directory that transformers loads. Rank 0 alone
// calls it.
//
// <job>/artifacts/model/: the base's weights with LoRA merged (W + scale B A, in fp32, then the
// plan's dtype), feature maps and window factors in F32, config.json, the Python files of the
// classes, tokenizer files, README.md, where the plan asks for them adapter/ and delta/, and last
// manifest.json (digests of inputs and outputs, spec, seed, results). Beside it check.safetensors:
// ids and the logits that Tandem computes from the exported files, for the check in transformers.
// Written aside and renamed: the directory is whole or not there. Doing it again gives the same
// bytes, so a crash in the middle is mended by a second call. Confined to the calling thread.
// Failures of the disk or of the base's files are a Status; exported weights that do not give the
// trained model's logits are kInternal.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"
#include "worker/data/token_shards.h"
#include "worker/model/llama.h"
#include "worker/model/parameters.h"
#include "worker/plan/plan.h"

namespace tandem {

inline constexpr int64_t kExportCheckTokens = 96;
// What is not whole yet stands in artifacts/ under such a name; an export removes what it finds.
inline constexpr const char* kExportAsidePrefix = ".model-";

struct ExportInputs {
  const Plan& plan;
  const Llama& model;  // the base, as loaded
  const Parameters& parameters;
  const TokenShard& validation;  // the check's ids are its first tokens
  std::string report_json;       // the text of report.json: goes into manifest and model card
  int64_t max_shard_bytes = 0;   // 0: plan.export_max_shard_mb
};

struct ExportedModel {
  std::string directory;        // <job>/artifacts/model
  std::string manifest_sha256;  // names the artifact
  int64_t bytes = 0;
};

Result<ExportedModel> ExportModel(const ExportInputs& inputs);

}  // namespace tandem
