// TrainingData: what the n-th sequence of a training stage is, over all sources of a job.
//
// A source is a shard of the token folder (manifest.json's train_shards) with its weight and its
// mask, when it has one (label_mask.h). Chunks are those of token_shards.h; of a masked source
// those without a label are left out. Which source and which chunk sequence n of a stage reads is a
// function of (seed, stage, n) alone: sampler.h. Torch-free. Immutable after Open: any thread.
// Failures are Status, naming file, value and what is allowed.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "worker/data/sampler.h"
#include "worker/data/token_shards.h"

namespace tandem {

class TrainingData {
 public:
  // T >= 2: length of a sequence. Every source must have a chunk.
  static Result<std::unique_ptr<TrainingData>> Open(const std::string& folder, int64_t T);

  // Sequences of a stage: its batches in order of steps.
  Sampler MakeSampler(uint64_t seed, int64_t stage_index, int64_t batch_size) const;

  // ids[T].
  void ReadIds(const ChunkPlace& place, int64_t* ids) const;
  // labels[T], 1 where the token is a label. All are in a source without a mask.
  void ReadLabels(const ChunkPlace& place, uint8_t* labels) const;
  // Where documents begin within the chunk, ascending, without its own beginning.
  std::vector<int64_t> DocumentStarts(const ChunkPlace& place) const;

  bool masked() const { return masked_; }  // some source has a mask
  int64_t num_chunks() const;
  int64_t num_sources() const { return static_cast<int64_t>(sources_.size()); }

 private:
  struct Source {
    double weight = 1;
    std::unique_ptr<TokenShard> ids, mask;  // mask: may be null
    std::vector<int64_t> labelled;          // its chunks, when there is a mask
    int64_t num_chunks = 0;
  };

  explicit TrainingData(int64_t T) : T_(T) {}
  Status AddSource(const std::string& folder, const TrainShard& shard);
  int64_t Begin(const ChunkPlace& place) const;  // first token of the chunk
  const Source& SourceOf(const ChunkPlace& place) const {
    return sources_[static_cast<size_t>(place.source)];
  }

  int64_t T_;
  bool masked_ = false;
  std::vector<Source> sources_;
};

}  // namespace tandem
