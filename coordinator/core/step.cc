#include "coordinator/core/step.h"

#include "base/status.h"
#include "coordinator/core/handlers.h"
#include "coordinator/core/schedule.h"
#include "coordinator/core/turn.h"

namespace tandem::core {

Effects Step(State& state, const Event& event, const Now& now) {
  TANDEM_CHECK_MSG(state.loaded != std::holds_alternative<StoreLoaded>(event),
                   "StoreLoaded must come first and once; got " + std::string(Name(event)));
  Turn turn(state, now);
  std::visit([&turn](const auto& happened) { On(turn, happened); }, event);
  if (turn.schedule_wanted()) Schedule(turn);
  return turn.Finish();
}

}  // namespace tandem::core
