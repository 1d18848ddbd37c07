// Gpus: the GPUs of this machine that a process started here may use.
//
// nvidia-smi says which there are: it comes with the driver, and asking it costs neither CUDA nor a
// LibTorch. CUDA_VISIBLE_DEVICES, where it is set, cuts and orders them as CUDA itself would.
// Stateless; any thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace tandem {

// What CUDA_VISIBLE_DEVICES takes for one GPU: an index, or a UUID or its beginning.
using GpuId = std::string;

// Runs nvidia-smi and reads the environment. Empty: no driver, no GPU, or none is visible.
std::vector<GpuId> VisibleGpus();

// "a, b" -> a and b.
std::vector<GpuId> GpuList(const std::string& text, char separator = ',');

// The reverse.
std::string GpuText(const std::vector<GpuId>& gpus);

// The pure part. listed: the UUIDs, one a line, in nvidia-smi's order; visible: the variable, if it
// is set. Its entries count up to the first that names no GPU, as in CUDA.
std::vector<GpuId> VisibleGpus(const std::string& listed,
                               const std::optional<std::string>& visible);

}  // namespace tandem
