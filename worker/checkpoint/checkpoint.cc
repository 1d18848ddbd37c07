#include "worker/checkpoint/checkpoint.h"

#include <ATen/ops/empty.h>

#include <cstring>
#include <vector>

#include "base/files.h"

namespace tandem {
namespace {

struct DtypeName {
  at::ScalarType type;
  const char* name;
};
constexpr DtypeName kDtypes[] = {{at::kFloat, "F32"},
                                 {at::kDouble, "F64"},
                                 {at::kLong, "I64"},
                                 {at::kInt, "I32"},
                                 {at::kBFloat16, "BF16"}};

const char* NameOf(at::ScalarType type) {
  for (const DtypeName& dtype : kDtypes) {
    if (dtype.type == type) return dtype.name;
  }
  TANDEM_CHECK_MSG(false, "a tensor of this type cannot be saved");
  return "";
}

std::string Describe(const at::Tensor& tensor) {
  std::string text = std::string(NameOf(tensor.scalar_type())) + " [";
  for (int64_t i = 0; i < tensor.dim(); ++i) {
    text += (i ? ", " : "") + std::to_string(tensor.size(i));
  }
  return text + "]";
}

Result<at::Tensor> CopyOut(const TensorView& view, const std::string& where) {
  for (const DtypeName& dtype : kDtypes) {
    if (view.dtype != dtype.name) continue;
    at::Tensor tensor = at::empty(view.shape, at::TensorOptions().dtype(dtype.type));
    std::memcpy(tensor.data_ptr(), view.data, static_cast<size_t>(view.bytes));
    return tensor;
  }
  return DataLoss(where + ": tensor '" + view.name + "' is " + view.dtype +
                  "; checkpoints hold F32, F64, I64, I32, BF16");
}

}  // namespace

Result<SavedCheckpoint> SaveCheckpoint(const CheckpointTarget& target,
                                       const CheckpointCursor& cursor,
                                       const NamedTensors& tensors) {
  std::vector<at::Tensor> contiguous;  // keeps the memory of the views
  std::vector<TensorView> views;
  for (const auto& [name, tensor] : tensors) {
    contiguous.push_back(tensor.detach().cpu().contiguous());
    const at::Tensor& held = contiguous.back();
    TensorView view;
    view.name = name;
    view.dtype = NameOf(held.scalar_type());
    view.shape = held.sizes().vec();
    view.data = static_cast<const std::byte*>(held.const_data_ptr());
    view.bytes = static_cast<int64_t>(held.nbytes());
    views.push_back(std::move(view));
  }
  return WriteCheckpointFolder(target, cursor, views);
}

Result<LoadedCheckpoint> LoadCheckpoint(const std::string& folder) {
  LoadedCheckpoint loaded;
  TANDEM_ASSIGN_OR_RETURN(loaded.manifest, VerifyCheckpoint(folder));
  for (const CheckpointFile& file : loaded.manifest.files) {
    const std::string path = JoinPath(folder, file.name);
    TANDEM_ASSIGN_OR_RETURN(const auto shard, SafetensorsFile::Open(path));
    for (const TensorView& view : shard->tensors()) {
      TANDEM_ASSIGN_OR_RETURN(at::Tensor tensor, CopyOut(view, path));
      loaded.tensors.emplace(view.name, std::move(tensor));
    }
  }
  return loaded;
}

Status RestoreTensors(const NamedTensors& loaded, const NamedTensors& into) {
  std::string wrong;
  const auto say = [&wrong](const std::string& line) {
    wrong += (wrong.empty() ? "" : "\n") + line;
  };
  for (const auto& [name, tensor] : into) {
    const auto found = loaded.find(name);
    if (found == loaded.end()) {
      say("the checkpoint has no '" + name + "'");
    } else if (Describe(found->second) != Describe(tensor)) {
      say("'" + name + "' is " + Describe(found->second) + " in the checkpoint; " +
          Describe(tensor) + " is needed");
    }
  }
  for (const auto& [name, tensor] : loaded) {
    if (!into.contains(name)) say("the checkpoint holds '" + name + "', which nothing asks for");
  }
  if (!wrong.empty()) return FailedPrecondition(wrong);
  for (const auto& [name, tensor] : into) {
    const at::Tensor& from = loaded.at(name);
    at::Tensor target = tensor.detach();  // the same memory, without autograd's objections
    if (target.device().is_cpu() && target.is_contiguous()) {
      std::memcpy(target.data_ptr(), from.const_data_ptr(), from.nbytes());
    } else {
      target.copy_(from);
    }
  }
  return Status::Ok();
}

}  // namespace tandem
