// Checkpoints: the whole trainable state of an attempt on disk, atomically, or not at all.
//
// Saved are named tensors (parameters, Adam moments; the frozen base is named by digest) and the
// cursor. Data parallel ranks hold the same state, so rank 0 writes for all. Order on disk (a crash
// between any two leaves the older checkpoint in force): step-<n>.tmp-<nonce>/ with fsynced files,
// MANIFEST.json, fsync of the folder, rename, fsync of the parent. An attempt writes only below its
// own e<epoch>. Confined to the training thread. A full disk is kResourceExhausted: the own .tmp is
// gone, older checkpoints stay; training may go on and try again.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>

#include "base/status.h"
#include "worker/checkpoint/checkpoint_folder.h"

namespace tandem {

// Names are free but unique: "layers.0.feature_map_q", "adam.m.layers.0.feature_map_q", ... On any
// device, contiguous or not; float32, float64, int64, bfloat16. Scalars are tensors of shape {}.
using NamedTensors = std::map<std::string, at::Tensor>;

struct LoadedCheckpoint {
  CheckpointManifest manifest;
  NamedTensors tensors;  // own memory
};

// Rank 0 only. Bitwise what `tensors` hold now.
Result<SavedCheckpoint> SaveCheckpoint(const CheckpointTarget& target,
                                       const CheckpointCursor& cursor, const NamedTensors& tensors);
// Verifies every digest first. kDataLoss: quarantine it and take another.
Result<LoadedCheckpoint> LoadCheckpoint(const std::string& folder);
// Copies the loaded values into tensors that exist already; names, shapes and dtypes must be the
// same sets: what is missing or too much is named, all at once.
Status RestoreTensors(const NamedTensors& loaded, const NamedTensors& into);

}  // namespace tandem
