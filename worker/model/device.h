// ComputeDevice: where a rank's tensors live, and in which type its frozen base computes.
//
// The same code runs on the CPU and on one CUDA device: everything goes through ATen, and what has
// a faster loop of its own takes it for fp32 on the CPU. LibTorch's CUDA half is loaded when a
// plan asks for it, never linked: one binary serves both, and a rank on the CPU does not pay for
// it. What trains, its gradients and moments, the residual stream and attention are fp32
// everywhere; base_type is the type of the frozen weights and of the products with them, whose
// sums and results are fp32. Plain value; OpenDevice is called once, by the thread that starts the
// rank, before any other work with tensors (ATen decides once whether there is CUDA).
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <string>

#include "base/status.h"

namespace tandem {

struct ComputeDevice {
  c10::Device device = c10::Device(c10::kCPU);
  c10::ScalarType base_type = c10::kFloat;  // kFloat, or kBFloat16
};

// name: cpu, cuda; base_dtype: float32, bfloat16 (with cuda alone). The ranks of a machine take its
// GPUs in turn. bfloat16 also lets fp32 products use TF32. kFailedPrecondition: no CUDA here, and
// why.
Result<ComputeDevice> OpenDevice(const std::string& name, const std::string& base_dtype,
                                 int64_t local_rank);

// Returns when the device has done all that it was given; at once on the CPU.
void WaitForDevice(const ComputeDevice& device);

// The most device memory that tensors held at one time since the last reset; 0 on the CPU.
int64_t PeakDeviceBytes(const ComputeDevice& device);
void ResetPeakDeviceBytes(const ComputeDevice& device);

}  // namespace tandem
