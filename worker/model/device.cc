#include "worker/model/device.h"

#include <ATen/Context.h>
#include <ATen/DeviceAccelerator.h>
#include <dlfcn.h>

#include <cstdlib>

namespace tandem {
namespace {

Status NoCuda(const std::string& why) {
  return FailedPrecondition(
      "the device is cuda, but this machine cannot use CUDA: " + why +
      "; run where LibTorch finds a GPU, or take the CPU "
      "(parallelism.device: cpu in a job file, --device cpu of generate and diagnose)");
}

// Registers CUDA's operators, allocator and hooks with ATen.
Status LoadCuda() {
  // Repeatable sums: cuBLAS must not pick its workspace by what else runs.
  setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", 0);
  if (dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    const char* why = dlerror();
    return NoCuda(why != nullptr ? why : "libtorch_cuda.so does not load");
  }
  if (!at::hasCUDA()) return NoCuda("LibTorch was loaded, but it sees no GPU or no driver");
  return Status::Ok();
}

}  // namespace

Result<ComputeDevice> OpenDevice(const std::string& name, const std::string& base_dtype,
                                 int64_t local_rank) {
  ComputeDevice opened;
  if (base_dtype == "bfloat16") opened.base_type = c10::kBFloat16;
  if (name == "cpu") {
    if (opened.base_type == c10::kFloat) return opened;
    return InvalidArgument(
        "model.dtype is bfloat16 and parallelism.device cpu; the CPU computes in "
        "float32: set model.dtype: float32, or parallelism.device: cuda");
  }
  TANDEM_RETURN_IF_ERROR(LoadCuda());
  const int64_t count = at::accelerator::deviceCount();
  if (count < 1) return NoCuda("the driver lists no device");
  const auto index = static_cast<c10::DeviceIndex>(local_rank % count);
  at::accelerator::setDeviceIndex(index);
  at::globalContext().setAllowTF32CuBLAS(opened.base_type == c10::kBFloat16);
  opened.device = c10::Device(c10::kCUDA, index);
  return opened;
}

void WaitForDevice(const ComputeDevice& device) {
  if (!device.device.is_cpu()) at::accelerator::synchronizeDevice(device.device.index());
}

int64_t PeakDeviceBytes(const ComputeDevice& device) {
  if (device.device.is_cpu()) return 0;
  constexpr size_t kAggregate = 0;  // of the kinds of memory that the allocator counts
  return at::accelerator::getDeviceStats(device.device.index()).allocated_bytes[kAggregate].peak;
}

void ResetPeakDeviceBytes(const ComputeDevice& device) {
  if (!device.device.is_cpu()) at::accelerator::resetPeakStats(device.device.index());
}

}  // namespace tandem
