// Step: the coordinator's centre. (state, event, now) -> effects, and nothing else: no clock,
// thread, I/O, randomness or hash order, so that whole clusters can be simulated from a seed and
// any history replayed.
//
// Confined to the state thread. Never fails: what a user did wrong is a Reply, a message out of
// place is counted, and a broken invariant aborts (the supervisor restarts us, and the store holds
// the last good state).
//
//   Start: StoreLoaded first, with what Store::Load gave. Then a Ticked every 100 ms.
//   Loop:  events (<= 64) -> Step each -> one Store::Commit of all `persist`
//          -> replies, commands, notifies, in order.
//
// One handler per event, in a file of its own name: on_*.cc. Placement is in schedule.h, retries in
// requeue.h. Beside them: invariants.h (what must hold after every step) and state_hash.h (same
// events, same hash).
#pragma once

#include "coordinator/core/effect.h"
#include "coordinator/core/event.h"
#include "coordinator/core/state.h"

namespace tandem::core {

Effects Step(State& state, const Event& event, const Now& now);

}  // namespace tandem::core
