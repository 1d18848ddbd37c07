// Tensors on their way into a file: named and sized first, made one at a time when their turn
// comes.
//
// Private to this folder. Free of state.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "worker/model/parameters.h"
#include "worker/model/safetensors.h"

namespace tandem {

struct TensorOutput {
  TensorView spec;
  std::function<at::Tensor()> make;  // contiguous, on the host, of the spec's dtype
};

// `make` may give any dtype and device.
void AddOutput(std::vector<TensorOutput>* outputs, const std::string& name,
               std::vector<int64_t> shape, bool bfloat16, std::function<at::Tensor()> make);

// What the conversion added to one layer, by its exported names.
std::vector<std::pair<std::string, at::Tensor>> ConversionTensors(const LayerParameters& layer,
                                                                  int64_t layer_index);
// The same of all layers, in F32.
void AddConversion(std::vector<TensorOutput>* outputs, const Parameters& parameters);

// One safetensors file, fsynced.
Status WriteOutputs(const std::string& path, const std::vector<TensorOutput>& outputs);

}  // namespace tandem
