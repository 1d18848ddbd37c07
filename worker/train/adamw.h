// AdamW in fp32 (.9/.999, eps 1e-8, no weight decay), for a fixed set of named tensors.
//
// Same numbers as torch.optim.AdamW with weight_decay=0 up to rounding. Each tensor counts its own
// updates, as there: one without a gradient stays as it is and its count does not move. Moments and
// counts are part of a checkpoint (AddState). Confined to the training thread.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>

namespace tandem {

class AdamW {
 public:
  // Tensors are contiguous fp32, all on one device, and updated in place; moments start at 0.
  explicit AdamW(std::map<std::string, at::Tensor> trained);

  // One update of the tensors named in `gradients`, each a name of `trained`.
  void Step(const std::map<std::string, at::Tensor>& gradients, double learning_rate);

  // "adam.m.<name>", "adam.v.<name>", "adam.t.<name>" (int64 scalar), sharing memory with the live
  // state.
  void AddState(std::map<std::string, at::Tensor>& state) const;
  const std::map<std::string, at::Tensor>& trained() const { return trained_; }

 private:
  // The loop of row_operations.h, for one tensor on the CPU.
  void UpdateOnHost(const std::string& name, const at::Tensor& gradient, double learning_rate);
  // torch's own fused update, all tensors in a few launches.
  void UpdateOnDevice(const std::map<std::string, at::Tensor>& gradients, double learning_rate);

  std::map<std::string, at::Tensor> trained_, first_, second_;
  std::map<std::string, at::Tensor> updates_;  // int64 scalars on the host
};

}  // namespace tandem
