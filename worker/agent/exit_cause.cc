#include "worker/agent/exit_cause.h"

#include <algorithm>
#include <fstream>

#include "worker/plan/messages.h"

namespace tandem::agent {
namespace {

std::string CauseOfKind(const std::string& kind) {
  for (const char* known :
       {"BAD_PLAN", "OOM", "COLLECTIVE_ERROR", "DATA", "STORAGE", "NONFINITE_LOSS"}) {
    if (kind == known) return kind;
  }
  return kind.empty() ? "" : "RANK_EXIT";  // BUG and whatever a newer rank may say
}

std::string CauseOfCode(const GangEnd& end) {
  switch (static_cast<RankExit>(end.exit.code)) {
    case RankExit::kBadPlan:
      return "BAD_PLAN";
    case RankExit::kOutOfMemory:
      return "OOM";
    case RankExit::kCollectiveLost:
      return "COLLECTIVE_ERROR";
    case RankExit::kDataOrStorage:
      return end.fatal_kind == "DATA" ? "DATA" : "STORAGE";
    case RankExit::kStopped:
      return "STOPPED";
    case RankExit::kNonFiniteLoss:
      return "NONFINITE_LOSS";
    case RankExit::kDone:
    case RankExit::kBug:
      return "RANK_EXIT";
  }
  // mpirun itself failed (no such program, no permission, no slots) before any rank ran.
  return end.said_hello || end.exit.code > 128 ? "RANK_EXIT" : "LAUNCH_FAILED";
}

std::string Words(const GangEnd& end) {
  if (end.exit.signal != 0) return "mpirun " + end.exit.ToString();
  if (end.exit.code > 128)
    return "a rank was killed by signal " + std::to_string(end.exit.code - 128);
  return "the ranks left with code " + std::to_string(end.exit.code);
}

}  // namespace

EndCause CauseOf(const GangEnd& end) {
  EndCause cause;
  cause.cause = CauseOfCode(end);
  // A rank that lost its peer first may set mpirun's code; the one that knows why says so by
  // `fatal`.
  const std::string said = CauseOfKind(end.fatal_kind);
  if (!said.empty() && (cause.cause == "COLLECTIVE_ERROR" || cause.cause == "RANK_EXIT")) {
    cause.cause = said;
  }
  cause.detail = Words(end);
  const std::string& more = end.fatal_text.empty() ? end.last_lines : end.fatal_text;
  if (!more.empty()) cause.detail += ": " + more;
  return cause;
}

std::string LastLines(const std::string& path, int64_t max_bytes) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return "";
  const int64_t size = file.tellg();
  const int64_t start = std::max<int64_t>(0, size - 4 * max_bytes);
  std::string text(static_cast<size_t>(size - start), '\0');
  file.seekg(start);
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(std::max<std::streamsize>(0, file.gcount())));
  std::string kept;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string line = text.substr(at, end - at);
    if (line.find_first_not_of("-= ") != std::string::npos) kept += line + "\n";
    at = end + 1;
  }
  while (!kept.empty() && kept.back() == '\n') kept.pop_back();
  const auto limit = static_cast<size_t>(max_bytes);
  return kept.size() > limit ? kept.substr(kept.size() - limit) : kept;
}

}  // namespace tandem::agent
