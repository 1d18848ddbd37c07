// The parts of a conversion by themselves: LoRA as a PEFT adapter, and the new tensors.
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "worker/export/tensor_output.h"
#include "worker/export/weights.h"

namespace tandem {
namespace {

using nlohmann::ordered_json;

// PEFT 0.21 warns of keys that it does not know, so there are none.
std::string AdapterConfig(const LoraOptions& lora, const std::string& base) {
  const ordered_json root = {{"peft_type", "LORA"},
                             {"task_type", "CAUSAL_LM"},
                             {"base_model_name_or_path", base},
                             {"r", lora.rank},
                             {"lora_alpha", lora.alpha},
                             {"lora_dropout", 0.0},
                             {"target_modules", lora.targets},
                             {"bias", "none"},
                             {"fan_in_fan_out", false},
                             {"use_rslora", false},
                             {"inference_mode", true},
                             {"rank_pattern", ordered_json::object()},
                             {"alpha_pattern", ordered_json::object()}};
  return root.dump(2) + "\n";
}

void AddPair(std::vector<TensorOutput>* outputs, const std::string& name, const LoraPair& pair) {
  if (!pair.defined()) return;
  AddOutput(outputs, name + ".lora_A.weight", pair.a.sizes().vec(), false,
            [a = pair.a] { return a.detach(); });
  AddOutput(outputs, name + ".lora_B.weight", pair.b.sizes().vec(), false,
            [b = pair.b] { return b.detach(); });
}

}  // namespace

Status WriteAdapter(const Parameters& parameters, const std::string& base,
                    const std::string& folder) {
  if (!parameters.has_lora()) {
    return FailedPrecondition(
        "export.adapter: there is no LoRA to write, because no finetune stage trained one; delete "
        "export.adapter");
  }
  std::vector<TensorOutput> outputs;
  for (int64_t i = 0; i < parameters.num_layers(); ++i) {
    const LayerParameters& layer = parameters.layer(i);
    const std::string prefix = "base_model.model.model.layers." + std::to_string(i) + ".self_attn.";
    AddPair(&outputs, prefix + "q_proj", layer.q);
    AddPair(&outputs, prefix + "k_proj", layer.k);
    AddPair(&outputs, prefix + "v_proj", layer.v);
    AddPair(&outputs, prefix + "o_proj", layer.o);
  }
  const std::string adapter = JoinPath(folder, "adapter");
  TANDEM_RETURN_IF_ERROR(MakeFolders(adapter));
  TANDEM_RETURN_IF_ERROR(WriteOutputs(JoinPath(adapter, "adapter_model.safetensors"), outputs));
  TANDEM_RETURN_IF_ERROR(WriteFileDurably(JoinPath(adapter, "adapter_config.json"),
                                          AdapterConfig(parameters.options().lora, base)));
  return SyncPath(adapter);
}

Status WriteDelta(const Parameters& parameters, const std::string& folder) {
  std::vector<TensorOutput> outputs;
  AddConversion(&outputs, parameters);
  const std::string delta = JoinPath(folder, "delta");
  TANDEM_RETURN_IF_ERROR(MakeFolders(delta));
  TANDEM_RETURN_IF_ERROR(WriteOutputs(JoinPath(delta, "linear_attention.safetensors"), outputs));
  return SyncPath(delta);
}

}  // namespace tandem
