// MetricsLog: metrics.jsonl, one line per training step, written by rank 0.
//
//   {"stage", "stage_index", "step" (from 1), "loss", "layers" (transfer; null: it has stopped),
//    "divergences" and "layer_stops" (transfer, last step: stage.h), "learning_rate", "grad_norm",
//    "window_dropped" (finetune), "tokens", "seconds", "peak_memory_bytes" (of rank 0 in this stage
//    so far; on a GPU of its tensors since the start), "reused" (true: taken over from another job,
//    whose seconds they are; stage_cache.h)}
// Lines are flushed, not synced: what a power cut loses is repeated by the next attempt, and
// readers take the highest epoch per (stage_index, step). Training thread only.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>

#include "base/status.h"
#include "worker/train/stage.h"

namespace tandem {

struct StepLine {
  std::string stage;
  int64_t stage_index = 0;
  int64_t step = 0;
  int64_t tokens = 0;
  double seconds = 0;
  double peak_memory_bytes = 0;
};

// One line, with its end.
std::string MetricsLine(const StepLine& line, const StepReport& report);

class MetricsLog {
 public:
  static Result<std::unique_ptr<MetricsLog>> Open(const std::string& path);
  ~MetricsLog();
  MetricsLog(const MetricsLog&) = delete;
  MetricsLog& operator=(const MetricsLog&) = delete;
  Status Append(const std::string& lines);

 private:
  MetricsLog(std::string path, std::FILE* file);
  std::string path_;
  std::FILE* file_;
};

}  // namespace tandem
