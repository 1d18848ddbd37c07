#include "worker/rank/step_batch.h"

#include <ATen/ops/empty.h>

#include <vector>

namespace tandem {

StepBatch ReadStepBatch(const Plan& plan, int64_t stage_index, int64_t step,
                        const TrainingData& data, const Collective& collective) {
  const int64_t T = plan.data.sequence_length, rank = collective.rank();
  const int64_t batch_size = plan.stages[static_cast<size_t>(stage_index)].batch_size;
  const Sampler sampler = data.MakeSampler(plan.seed, stage_index, batch_size);
  const std::vector<ChunkPlace> places = sampler.PlacesOfRank(step, rank, collective.size());
  const auto B = static_cast<int64_t>(places.size());
  StepBatch batch;
  batch.ids_BT = at::empty({B, T}, at::kLong);
  if (data.masked()) batch.label_mask_BT = at::empty({B, T}, at::kByte);
  for (int64_t b = 0; b < B; ++b) {
    const ChunkPlace& place = places[static_cast<size_t>(b)];
    if (plan.data.document_mask) batch.document_starts.push_back(data.DocumentStarts(place));
    data.ReadIds(place, batch.ids_BT.mutable_data_ptr<int64_t>() + b * T);
    if (!data.masked()) continue;
    data.ReadLabels(place, batch.label_mask_BT.mutable_data_ptr<uint8_t>() + b * T);
  }
  batch.first_sample = rank * (batch_size / collective.size());
  return batch;
}

}  // namespace tandem
