#include "worker/export/tensor_output.h"

#include <map>

namespace tandem {

void AddOutput(std::vector<TensorOutput>* outputs, const std::string& name,
               std::vector<int64_t> shape, bool bfloat16, std::function<at::Tensor()> make) {
  TensorOutput output;
  output.spec.name = name;
  output.spec.dtype = bfloat16 ? "BF16" : "F32";
  output.spec.bytes = bfloat16 ? 2 : 4;
  for (const int64_t size : shape) output.spec.bytes *= size;
  output.spec.shape = std::move(shape);
  output.make = [make = std::move(make), bfloat16] {
    return make().to(at::kCPU, bfloat16 ? at::kBFloat16 : at::kFloat).contiguous();
  };
  outputs->push_back(std::move(output));
}

std::vector<std::pair<std::string, at::Tensor>> ConversionTensors(const LayerParameters& layer,
                                                                  int64_t layer_index) {
  const std::string prefix = "model.layers." + std::to_string(layer_index) + ".self_attn.";
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const auto& [name, tensor] : {std::pair{"feature_map_q.weight", layer.feature_map_q},
                                     std::pair{"feature_map_q.bias", layer.feature_map_q_bias},
                                     std::pair{"feature_map_k.weight", layer.feature_map_k},
                                     std::pair{"feature_map_k.bias", layer.feature_map_k_bias},
                                     std::pair{"window_factors", layer.window_factor}}) {
    if (tensor.defined()) tensors.emplace_back(prefix + name, tensor);
  }
  return tensors;
}

void AddConversion(std::vector<TensorOutput>* outputs, const Parameters& parameters) {
  for (int64_t i = 0; i < parameters.num_layers(); ++i) {
    for (const auto& [name, tensor] : ConversionTensors(parameters.layer(i), i)) {
      AddOutput(outputs, name, tensor.sizes().vec(), false,
                [tensor = tensor] { return tensor.detach(); });
    }
  }
}

Status WriteOutputs(const std::string& path, const std::vector<TensorOutput>& outputs) {
  std::vector<TensorView> specs;
  std::map<std::string, const TensorOutput*> by_name;
  for (const TensorOutput& output : outputs) {
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

}  // namespace tandem
