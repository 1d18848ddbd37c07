#include "worker/export/weights.h"

#include <ATen/ops/add.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>

#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "worker/export/tensor_output.h"
#include "worker/model/safetensors.h"

namespace tandem {
namespace {

const LoraPair* LoraOf(const Parameters& parameters, int64_t layer_index,
                       const std::string& projection) {
  const LayerParameters& layer = parameters.layer(layer_index);
  if (projection == "q_proj") return &layer.q;
  if (projection == "k_proj") return &layer.k;
  if (projection == "v_proj") return &layer.v;
  if (projection == "o_proj") return &layer.o;
  return nullptr;
}

// "model.layers.3.self_attn.q_proj.weight" -> its pair; null for every other name.
const LoraPair* LoraOfName(const Parameters& parameters, const std::string& name) {
  const std::string prefix = "model.layers.", middle = ".self_attn.", suffix = ".weight";
  const size_t at = name.find(middle);
  if (!name.starts_with(prefix) || at == std::string::npos || !name.ends_with(suffix)) {
    return nullptr;
  }
  const int64_t layer_index = std::stoll(name.substr(prefix.size(), at - prefix.size()));
  const size_t begin = at + middle.size();
  const LoraPair* pair =
      LoraOf(parameters, layer_index, name.substr(begin, name.size() - suffix.size() - begin));
  return pair != nullptr && pair->defined() ? pair : nullptr;
}

at::Tensor Merged(const Llama& model, const Parameters& parameters, const std::string& name) {
  const at::Tensor weight = model.Weight(name);
  const LoraPair* pair = LoraOfName(parameters, name);
  if (pair == nullptr) return weight;
  const at::Tensor product = at::matmul(pair->b.detach().cpu(), pair->a.detach().cpu());
  return at::add(weight, product, pair->scale);
}

std::vector<TensorOutput> ListOutputs(const Llama& model, const Parameters& parameters,
                                      bool bfloat16) {
  std::vector<TensorOutput> outputs;
  for (const TensorView& view : ExpectedTensors(model.config())) {
    AddOutput(&outputs, view.name, view.shape, bfloat16,
              [&model, &parameters, name = view.name] { return Merged(model, parameters, name); });
  }
  AddConversion(&outputs, parameters);
  return outputs;
}

// In the order of the model, so that a shard holds neighbours.
std::vector<std::vector<TensorOutput>> SplitIntoShards(std::vector<TensorOutput> outputs,
                                                       int64_t max_bytes) {
  std::vector<std::vector<TensorOutput>> shards;
  int64_t bytes = 0;
  for (TensorOutput& output : outputs) {
    if (shards.empty() || bytes + output.spec.bytes > max_bytes) {
      shards.emplace_back();
      bytes = 0;
    }
    bytes += output.spec.bytes;
    shards.back().push_back(std::move(output));
  }
  return shards;
}

Result<at::Tensor> Widened(const SafetensorsModel& files, const TensorView& want) {
  const TensorView* view = files.Find(want.name);
  if (view == nullptr || view->shape != want.shape) {
    return Internal("the export's files do not hold '" + want.name + "' in its shape");
  }
  const at::ScalarType type = view->dtype == "BF16"  ? at::kBFloat16
                              : view->dtype == "F16" ? at::kHalf
                                                     : at::kFloat;
  at::Tensor tensor = at::empty(view->shape, type);
  TANDEM_CHECK(static_cast<int64_t>(tensor.nbytes()) == view->bytes);
  std::memcpy(tensor.data_ptr(), view->data, tensor.nbytes());
  return tensor.to(at::kFloat);
}

}  // namespace

Result<int64_t> WriteExportWeights(const Llama& model, const Parameters& parameters,
                                   const std::string& dtype, int64_t max_shard_bytes,
                                   const std::string& folder) {
  TANDEM_CHECK_MSG(dtype == "float32" || dtype == "bfloat16", dtype);
  const auto shards =
      SplitIntoShards(ListOutputs(model, parameters, dtype == "bfloat16"), max_shard_bytes);
  int64_t total = 0;
  nlohmann::ordered_json weight_map = nlohmann::ordered_json::object();
  for (size_t i = 0; i < shards.size(); ++i) {
    char name[64] = "model.safetensors";
    if (shards.size() > 1) {
      std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", i + 1, shards.size());
    }
    TANDEM_RETURN_IF_ERROR(WriteOutputs(JoinPath(folder, name), shards[i]));
    for (const TensorOutput& output : shards[i]) {
      weight_map[output.spec.name] = name;
      total += output.spec.bytes;
    }
  }
  if (shards.size() > 1) {
    const nlohmann::ordered_json index = {{"metadata", {{"total_size", total}}},
                                          {"weight_map", weight_map}};
    TANDEM_RETURN_IF_ERROR(
        WriteFileDurably(JoinPath(folder, "model.safetensors.index.json"), index.dump(1) + "\n"));
  }
  return total;
}

Result<ExportedWeights> ReadExportWeights(const std::string& folder, const ModelConfig& config,
                                          const ParameterOptions& options,
                                          const ComputeDevice& device) {
  TANDEM_ASSIGN_OR_RETURN(const SafetensorsModel files, SafetensorsModel::Open(folder));
  std::map<std::string, at::Tensor> weights;
  for (const TensorView& want : ExpectedTensors(config)) {
    TANDEM_ASSIGN_OR_RETURN(weights[want.name], Widened(files, want));
  }
  ExportedWeights exported;
  exported.model = std::make_unique<Llama>(config, weights, device);
  ParameterOptions without_lora = options;
  without_lora.lora = LoraOptions();
  exported.parameters = std::make_unique<Parameters>(config, without_lora, device.device);
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const LayerParameters& layer = exported.parameters->layer(i);
    for (const auto& [name, into] : ConversionTensors(layer, i)) {
      TensorView want;
      want.name = name;
      want.shape = into.sizes().vec();
      TANDEM_ASSIGN_OR_RETURN(const at::Tensor from, Widened(files, want));
      into.detach().copy_(from);
    }
  }
  return exported;
}

}  // namespace tandem
