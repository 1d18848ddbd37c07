#include "coordinator/core/event.h"

#include <array>

namespace tandem::core {

const char* Name(const Event& event) {
  static constexpr std::array<const char*, std::variant_size_v<Event>> kNames = {
      "StoreLoaded",
      "JobCreated",
      "JobCancelRequested",
      "WorkerDrainRequested",
      "WorkerUndrainRequested",
      "WorkerRegistered",
      "WorkerDisconnected",
      "WorkerDrainAnnounced",
      "HeartbeatReceived",
      "AttemptReported",
      "CheckpointCommitted",
      "StageCommitted",
      "AttemptEnded",
      "Ticked"};
  return kNames.at(event.index());
}

}  // namespace tandem::core
