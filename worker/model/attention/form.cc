#include "worker/model/attention/form.h"

#include <ATen/ops/exp.h>
#include <ATen/ops/sigmoid.h>

namespace tandem {

FeatureMapKind FeatureMapKindFromWord(const std::string& word) {
  if (word == "hedgehog") return FeatureMapKind::kHedgehog;
  if (word == "exp") return FeatureMapKind::kExp;
  if (word == "exp_shifted") return FeatureMapKind::kExpShifted;
  if (word == "relu") return FeatureMapKind::kRelu;
  TORCH_CHECK(word == "elu", "feature map \"", word,
              "\"; must be hedgehog, exp, exp_shifted, relu or elu");
  return FeatureMapKind::kElu;
}

WindowKind WindowKindFromWord(const std::string& word) {
  TORCH_CHECK(word == "sliding" || word == "terraced", "window kind \"", word,
              "\"; must be sliding or terraced");
  return word == "sliding" ? WindowKind::kSliding : WindowKind::kTerraced;
}

Mixing MixingFromWord(const std::string& word) {
  TORCH_CHECK(word == "shared" || word == "mass", "mixing kind \"", word,
              "\"; must be shared or mass");
  return word == "shared" ? Mixing::kShared : Mixing::kMass;
}

const LayerRetention& AttentionForm::RetainedIn(int64_t layer_index) const {
  static const LayerRetention none;
  const auto index = static_cast<size_t>(layer_index);
  return index < retained.size() ? retained[index] : none;
}

at::Tensor ActivateWindowFactor(const at::Tensor& theta_H, const std::string& factor) {
  return factor == "exp" ? at::exp(theta_H) : at::sigmoid(theta_H);
}

TransferObjective TransferObjectiveFromWord(const std::string& word) {
  TransferObjective objective;
  if (word == "weights") {
    objective.weights = 1;
  } else if (word == "outputs") {
    objective.outputs = 1;
  } else if (word == "hybrid_outputs") {
    objective.hybrid_outputs = 1;
  } else {
    TORCH_CHECK(word == "hybrid_weights", "transfer objective \"", word,
                "\"; must be weights, outputs, hybrid_outputs or hybrid_weights");
    objective.hybrid_weights = 1;
  }
  return objective;
}

}  // namespace tandem
