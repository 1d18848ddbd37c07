#include "coordinator/core/effect.h"

namespace tandem::core {

bool Persist::empty() const {
  return jobs.empty() && events.empty() && requests.empty() && workers.empty() &&
         forgotten_requests.empty() && forgotten_workers.empty() && drop_events_below == 0;
}

}  // namespace tandem::core
