// AdamW in fp32 (.9/.999, eps 1e-8, no weight decay), for a fixed set of named tensors.
//
// Same numbers as torch.optim.AdamW with weight_decay=0 up to rounding. The moments are part of a
// checkpoint (State); t is not kept here: the caller's step is. Confined to the training thread.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>

namespace tandem {

class AdamW {
 public:
  // Tensors are contiguous fp32 on the CPU and updated in place; moments start at 0.
  explicit AdamW(std::map<std::string, at::Tensor> trained);

  // One update, the `step`-th counted from 0. Names of `gradients` are those of `trained`; a
  // missing one means no gradient: that tensor stays, moments and all.
  void Step(const std::map<std::string, at::Tensor>& gradients, int64_t step, double learning_rate);

  // "adam.m.<name>", "adam.v.<name>", sharing memory with the moments.
  void AddState(std::map<std::string, at::Tensor>& state) const;
  const std::map<std::string, at::Tensor>& trained() const { return trained_; }

 private:
  std::map<std::string, at::Tensor> trained_, first_, second_;
};

}  // namespace tandem
