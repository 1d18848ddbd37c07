#include "worker/data/training_data.h"

#include <algorithm>

#include "base/files.h"
#include "worker/data/label_mask.h"

namespace tandem {

Result<std::unique_ptr<TrainingData>> TrainingData::Open(const std::string& folder, int64_t T) {
  TANDEM_CHECK(T >= 2);
  TANDEM_ASSIGN_OR_RETURN(const std::vector<TrainShard> shards, ReadTrainShards(folder));
  std::unique_ptr<TrainingData> data(new TrainingData(T));
  for (const TrainShard& shard : shards) {
    TANDEM_RETURN_IF_ERROR(data->AddSource(folder, shard));
  }
  return data;
}

Status TrainingData::AddSource(const std::string& folder, const TrainShard& shard) {
  const std::string prefix = JoinPath(folder, shard.name);
  Source source;
  source.weight = shard.weight;
  TANDEM_ASSIGN_OR_RETURN(source.ids, TokenShard::Open(prefix));
  source.num_chunks = source.ids->NumChunks(T_);
  std::string lack = "tokens; one sequence needs more than";
  TANDEM_ASSIGN_OR_RETURN(source.mask, OpenLabelMask(prefix, *source.ids));
  if (source.mask != nullptr) {
    if (source.num_chunks > 0) lack = "tokens, none of them to be trained in sequences of";
    source.labelled = LabelledChunks(*source.mask, T_);
    source.num_chunks = static_cast<int64_t>(source.labelled.size());
    masked_ = true;
  }
  if (source.num_chunks < 1) {
    return InvalidArgument(
        "data.train: " + shard.name + " has " + std::to_string(source.ids->num_tokens()) + " " +
        lack + " data.sequence_length = " + std::to_string(T_) + "; add text or lower it");
  }
  sources_.push_back(std::move(source));
  return Status::Ok();
}

Sampler TrainingData::MakeSampler(uint64_t seed, int64_t stage_index, int64_t batch_size) const {
  std::vector<SourceShare> shares;
  for (const Source& source : sources_) shares.push_back({source.num_chunks, source.weight});
  return Sampler(seed, stage_index, shares, batch_size);
}

int64_t TrainingData::num_chunks() const {
  int64_t sum = 0;
  for (const Source& source : sources_) sum += source.num_chunks;
  return sum;
}

int64_t TrainingData::Begin(const ChunkPlace& place) const {
  const Source& source = SourceOf(place);
  TANDEM_CHECK(place.chunk >= 0 && place.chunk < source.num_chunks);
  if (source.mask == nullptr) return place.chunk * T_;
  return source.labelled[static_cast<size_t>(place.chunk)] * T_;
}

void TrainingData::ReadIds(const ChunkPlace& place, int64_t* ids) const {
  SourceOf(place).ids->Read(Begin(place), T_, ids);
}

void TrainingData::ReadLabels(const ChunkPlace& place, uint8_t* labels) const {
  const Source& source = SourceOf(place);
  if (source.mask == nullptr) {
    std::fill(labels, labels + T_, uint8_t{1});
    return;
  }
  std::vector<int64_t> wide(static_cast<size_t>(T_));
  source.mask->Read(Begin(place), T_, wide.data());
  std::transform(wide.begin(), wide.end(), labels,
                 [](int64_t label) { return static_cast<uint8_t>(label != 0); });
}

std::vector<int64_t> TrainingData::DocumentStarts(const ChunkPlace& place) const {
  return SourceOf(place).ids->DocumentStarts(Begin(place), T_);
}

}  // namespace tandem
