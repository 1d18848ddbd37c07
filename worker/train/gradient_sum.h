// Gradients of all ranks added up: one flat buffer, one collective call, the order of names.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>

#include "worker/comm/collective.h"

namespace tandem {

// Every rank has the same names and shapes; afterwards the same bits. Nothing moves with one rank.
void SumGradients(Collective& collective, std::map<std::string, at::Tensor>& gradients);

// The Euclidean norm over all tensors, summed in double in the order of names.
double GradientNorm(const std::map<std::string, at::Tensor>& gradients);

}  // namespace tandem
