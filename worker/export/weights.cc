#include "worker/export/weights.h"

#include <ATen/ops/add.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>

#include <cstdio>
#include <cstring>
#include <functional>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "worker/model/safetensors.h"

namespace tandem {
namespace {

// A tensor that is made when its turn comes.
struct Output {
  TensorView spec;
  std::function<at::Tensor()> make;  // contiguous, of the spec's dtype
};

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
  return at::add(weight, at::matmul(pair->b.detach(), pair->a.detach()), pair->scale);
}

void AddOutput(std::vector<Output>* outputs, const std::string& name, const at::Tensor& like,
               bool bfloat16, std::function<at::Tensor()> make) {
  Output output;
  output.spec.name = name;
  output.spec.dtype = bfloat16 ? "BF16" : "F32";
  output.spec.shape = like.sizes().vec();
  output.spec.bytes = like.numel() * (bfloat16 ? 2 : 4);
  output.make = [make = std::move(make), bfloat16] {
    return make().to(bfloat16 ? at::kBFloat16 : at::kFloat).contiguous();
  };
  outputs->push_back(std::move(output));
}

std::vector<Output> ListOutputs(const Llama& model, const Parameters& parameters, bool bfloat16) {
  std::vector<Output> outputs;
  for (const TensorView& view : ExpectedTensors(model.config())) {
    AddOutput(&outputs, view.name, model.Weight(view.name), bfloat16,
              [&model, &parameters, name = view.name] { return Merged(model, parameters, name); });
  }
  for (int64_t i = 0; i < parameters.num_layers(); ++i) {
    const LayerParameters& layer = parameters.layer(i);
    const std::string prefix = "model.layers." + std::to_string(i) + ".self_attn.";
    for (const auto& [name, tensor] : {std::pair{"feature_map_q.weight", layer.feature_map_q},
                                       std::pair{"feature_map_k.weight", layer.feature_map_k},
                                       std::pair{"window_factors", layer.window_factor}}) {
      AddOutput(&outputs, prefix + name, tensor, false, [tensor] { return tensor.detach(); });
    }
  }
  return outputs;
}

Status WriteShard(const std::string& path, const std::vector<Output>& outputs) {
  std::vector<TensorView> specs;
  std::map<std::string, const Output*> by_name;
  for (const Output& output : outputs) {
    specs.push_back(output.spec);
    by_name[output.spec.name] = &output;
  }
  TANDEM_ASSIGN_OR_RETURN(auto writer,
                          SafetensorsWriter::Create(path, std::move(specs), {{"format", "pt"}}));
  for (const TensorView& spec : writer->order()) {
    const at::Tensor tensor = by_name.at(spec.name)->make();
    TANDEM_RETURN_IF_ERROR(
        writer->Append(tensor.const_data_ptr(), static_cast<int64_t>(tensor.nbytes())));
  }
  return writer->Finish();
}

// In the order of the model, so that a shard holds neighbours.
std::vector<std::vector<Output>> SplitIntoShards(std::vector<Output> outputs, int64_t max_bytes) {
  std::vector<std::vector<Output>> shards;
  int64_t bytes = 0;
  for (Output& output : outputs) {
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
  const bool bfloat16 = view->dtype == "BF16";
  at::Tensor tensor = at::empty(view->shape, bfloat16 ? at::kBFloat16 : at::kFloat);
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
    TANDEM_RETURN_IF_ERROR(WriteShard(JoinPath(folder, name), shards[i]));
    for (const Output& output : shards[i]) {
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
                                          const ParameterOptions& options) {
  TANDEM_ASSIGN_OR_RETURN(const SafetensorsModel files, SafetensorsModel::Open(folder));
  std::map<std::string, at::Tensor> weights;
  for (const TensorView& want : ExpectedTensors(config)) {
    TANDEM_ASSIGN_OR_RETURN(weights[want.name], Widened(files, want));
  }
  ExportedWeights exported;
  exported.model = std::make_unique<Llama>(config, weights);
  ParameterOptions without_lora = options;
  without_lora.lora = LoraOptions();
  exported.parameters = std::make_unique<Parameters>(config, without_lora);
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const LayerParameters& layer = exported.parameters->layer(i);
    const std::string prefix = "model.layers." + std::to_string(i) + ".self_attn.";
    for (const auto& [name, into] : {std::pair{"feature_map_q.weight", layer.feature_map_q},
                                     std::pair{"feature_map_k.weight", layer.feature_map_k},
                                     std::pair{"window_factors", layer.window_factor}}) {
      TensorView want;
      want.name = prefix + name;
      want.shape = into.sizes().vec();
      TANDEM_ASSIGN_OR_RETURN(const at::Tensor from, Widened(files, want));
      into.detach().copy_(from);
    }
  }
  return exported;
}

}  // namespace tandem
