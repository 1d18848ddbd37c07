// Handlers: one per event, each in the file of its name (on_*.cc). Called by Step alone.
#pragma once

#include "coordinator/core/event.h"
#include "coordinator/core/turn.h"

namespace tandem::core {

void On(Turn& turn, const StoreLoaded& event);
void On(Turn& turn, const JobCreated& event);
void On(Turn& turn, const JobCancelRequested& event);
void On(Turn& turn, const WorkerDrainRequested& event);
void On(Turn& turn, const WorkerUndrainRequested& event);
void On(Turn& turn, const WorkerRegistered& event);
void On(Turn& turn, const WorkerDisconnected& event);
void On(Turn& turn, const WorkerDrainAnnounced& event);
void On(Turn& turn, const HeartbeatReceived& event);
void On(Turn& turn, const AttemptReported& event);
void On(Turn& turn, const CheckpointCommitted& event);
void On(Turn& turn, const StageCommitted& event);
void On(Turn& turn, const AttemptEnded& event);
void On(Turn& turn, const Ticked& event);

}  // namespace tandem::core
