// Guard: the one place where exceptions of a rank end and become an exit code and a fatal message.
#pragma once

#include <functional>

#include "worker/plan/messages.h"
#include "worker/rank/event_channel.h"

namespace tandem {

// Runs body; what it throws is told as a `fatal` message, and returned as the exit code.
RankExit RunGuarded(const std::function<void(RankMessage)>& tell,
                    const std::function<RankExit()>& body);

// Runs body; what it throws is sent as `fatal`, written to stderr, and returned as the exit code.
RankExit RunGuarded(EventChannel& channel, const std::function<RankExit()>& body);

}  // namespace tandem
