// The tensors of an export: the base's names with LoRA merged in, and what the conversion added.
//
// Free of state. LoRA: W + (alpha/r) B A in fp32 (method.md §6.2), then the export's dtype by
// rounding to nearest even. Names beyond the base's:
// model.layers.N.self_attn.{feature_map_q,feature_map_k}.weight (H,d,f), k's (K,d,f) where tied,
// .{feature_map_q,feature_map_k}.bias where the maps have one, and .window_factors (H), always F32.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>

#include "base/status.h"
#include "worker/model/llama.h"
#include "worker/model/parameters.h"

namespace tandem {

// model.safetensors, or model-0000i-of-0000n.safetensors with their index when the bytes exceed
// max_shard_bytes (a single larger tensor gets a shard of its own). dtype: float32 or bfloat16.
// Returns the bytes written.
Result<int64_t> WriteExportWeights(const Llama& model, const Parameters& parameters,
                                   const std::string& dtype, int64_t max_shard_bytes,
                                   const std::string& folder);

// delta/linear_attention.safetensors: what the conversion added, alone. With the base's own weights
// and the adapter it is the converted model again.
Status WriteDelta(const Parameters& parameters, const std::string& folder);

// adapter/adapter_model.safetensors and adapter_config.json: LoRA alone, as PEFT reads it. `base`
// is the base's name. kFailedPrecondition without LoRA.
Status WriteAdapter(const Parameters& parameters, const std::string& base,
                    const std::string& folder);

// The model that the files of `folder` describe: the base with merged weights, and parameters
// without LoRA.
struct ExportedWeights {
  std::unique_ptr<Llama> model;
  std::unique_ptr<Parameters> parameters;
};
Result<ExportedWeights> ReadExportWeights(const std::string& folder, const ModelConfig& config,
                                          const ParameterOptions& options,
                                          const ComputeDevice& device = {});

}  // namespace tandem
