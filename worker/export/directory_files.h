// The files of an export beside its weights. Torch-free; no state, any thread.
//
// config.json follows the rules of the Python classes: no layer_types, both spellings of RoPE and
// of the dtype, kinds of attention under `hybrid`. Every file's bytes are a function of plan, base,
// data and results: no time, no host, so an export made twice is the same.
#pragma once

#include <string>

#include "base/status.h"
#include "worker/model/model_config.h"
#include "worker/plan/plan.h"

namespace tandem {

// The base's config.json with what a hybrid needs; `base_json` is its text.
Result<std::string> ExportConfigJson(const std::string& base_json, const ModelConfig& config,
                                     const Plan& plan);

// Tokenizer files, generation_config.json and licences from the base, byte for byte, but for
// tokenizer_class where transformers 4 could not load it; and the classes' Python files from
// plan.export_classes.
Status CopyBaseFiles(const Plan& plan, const std::string& folder);

// README.md: what the model is, its component table, how to load it. report_json may be "".
Result<std::string> ModelCard(const Plan& plan, const std::string& report_json);

// manifest.json over every file in `folder` (itself excepted), the base's files, the tokens'
// manifest, spec, seed and results.
Result<std::string> ExportManifestJson(const Plan& plan, const std::string& report_json,
                                       const std::string& folder);

}  // namespace tandem
