#include "worker/rank/guard.h"

#include <c10/util/Exception.h>

#include <exception>
#include <new>
#include <string>
#include <utility>

#include "base/log.h"
#include "worker/comm/collective.h"
#include "worker/rank/failure.h"
#include "worker/train/stage.h"

namespace tandem {
namespace {

using Tell = std::function<void(RankMessage)>;

RankExit Fail(const Tell& tell, RankExit code, const char* cause, const std::string& text) {
  Log(LogLevel::kError, "rank_failed", {{"cause", cause}, {"message", text}});
  RankMessage message;
  message.type = "fatal";
  message.kind = cause;
  message.text = text;
  tell(std::move(message));
  return code;
}

// c10's CPU allocator has no exception of its own; CUDA's has.
bool IsOutOfMemory(const c10::Error& error) {
  if (dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr) return true;
  const std::string text = error.what_without_backtrace();
  return text.find("DefaultCPUAllocator") != std::string::npos ||
         text.find("not enough memory") != std::string::npos;
}

}  // namespace

RankExit RunGuarded(const Tell& tell, const std::function<RankExit()>& body) {
  try {
    return body();
  } catch (const RankFailure& e) {
    return Fail(tell, e.exit_code(), e.cause().c_str(), e.what());
  } catch (const NonFiniteLoss& e) {
    return Fail(tell, RankExit::kNonFiniteLoss, "NONFINITE_LOSS", e.what());
  } catch (const CollectiveLost& e) {
    return Fail(tell, RankExit::kCollectiveLost, "COLLECTIVE_ERROR", e.what());
  } catch (const std::bad_alloc& e) {
    return Fail(tell, RankExit::kOutOfMemory, "OOM", e.what());
  } catch (const c10::Error& e) {
    const bool is_memory = IsOutOfMemory(e);
    return Fail(tell, is_memory ? RankExit::kOutOfMemory : RankExit::kBug,
                is_memory ? "OOM" : "BUG", e.what());
  } catch (const std::exception& e) {
    return Fail(tell, RankExit::kBug, "BUG", e.what());
  } catch (...) {
    return Fail(tell, RankExit::kBug, "BUG", "an exception that is no std::exception");
  }
}

RankExit RunGuarded(EventChannel& channel, const std::function<RankExit()>& body) {
  return RunGuarded([&channel](RankMessage message) { channel.Send(std::move(message)); }, body);
}

}  // namespace tandem
