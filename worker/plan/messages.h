// What ranks and their agent say to each other: JSON lines (at most 64 KiB each) over a unix stream
// socket.
//
// Every line has v, type, epoch, rank, seq. Up: hello, progress, event, checkpoint, fatal. Down:
// welcome, action, kill. Training never waits for the socket: a full queue drops `progress`, never
// the others. End of file: the rank stops.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "base/status.h"

namespace tandem {

inline constexpr int kMessageVersion = 1;
inline constexpr int64_t kMaxMessageBytes = 64 * 1024;

// How a rank leaves; mpirun relays the code.
enum class RankExit : int {
  kDone = 0,
  kBadPlan = 10,
  kOutOfMemory = 11,
  kCollectiveLost = 12,
  kDataOrStorage = 13,
  kBug = 14,
  kStopped = 15,  // on request, after a checkpoint
  kNonFiniteLoss = 16,
};

struct RankMessage {  // rank -> agent
  std::string type;   // hello, progress, event, checkpoint, fatal
  int64_t epoch = 0;
  int64_t rank = 0;
  int64_t seq = 0;
  // hello
  int64_t pid = 0;
  // progress (rank 0 tells the loss; each second)
  std::string stage;        // attention_transfer, finetune, evaluate, export
  int64_t stage_index = 0;  // among the plan's training stages, then evaluate, then export
  int64_t step = 0;
  int64_t steps = 0;
  std::map<std::string, double>
      metrics;  // loss, tokens_per_second, step_seconds, learning_rate, grad_norm
  // event: kind is stage_started, stage_committed, report, artifact, checkpoint_bad, ...; data is a
  // JSON text.
  //   stage_committed: data {"output_sha256": ...};  report: data {"path": ".../report.json"};
  //   artifact: {"path": dir}
  // checkpoint: step, stage_index, and data {"directory", "manifest_sha256", "bytes",
  // "blocking_seconds"} fatal: kind is the cause (BAD_PLAN, OOM, COLLECTIVE_ERROR, DATA, STORAGE,
  // NONFINITE_LOSS, BUG), text says what happened
  std::string kind;
  std::string text;
  std::string data = "{}";
};

struct AgentMessage {  // agent -> rank
  std::string type;    // welcome, action, kill
  int64_t epoch = 0;
  std::string action;  // checkpoint, checkpoint_stop, stop
};

// One line with its newline.
std::string EncodeRankMessage(const RankMessage& message);
std::string EncodeAgentMessage(const AgentMessage& message);
// A line without its newline. Unknown keys are ignored (newer peers), wrong types are
// kInvalidArgument.
Result<RankMessage> DecodeRankMessage(const std::string& line);
Result<AgentMessage> DecodeAgentMessage(const std::string& line);

}  // namespace tandem
