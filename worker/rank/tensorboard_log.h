// TensorboardLog: the training's figures as a TensorBoard event file, live, written by rank 0.
//
//   <job>/artifacts/tensorboard/events.out.tfevents.<epoch, ten digits>.tandem
// One file per attempt. A resumed attempt's file opens with a session start at its first step, at
// which readers drop what the attempt before had made beyond it: every step counts once.
//
// Format: records {u64 length, u32 masked CRC-32C of the length, bytes, u32 masked CRC-32C of the
// bytes}, little-endian; mask(c) = rotr(c, 15) + 0xa282ead8. The bytes are a protobuf Event,
// encoded by hand (the rank must not meet protobuf): 1 double wall time, 2 int64 step, 3 version
// text (first record: "brain.Event:2"), 5 Summary {1 Value {1 tag, 2 float}}, 7 SessionLog {1
// status}. Two attempts over the same steps differ in wall times alone.
//
// Records are flushed, not synced. Errors are the disk's. Training thread only.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/status.h"

namespace tandem {

// (tag, value): "finetune/loss". Values that are not finite are left out of the file.
using Scalars = std::vector<std::pair<std::string, double>>;

class TensorboardLog {
 public:
  // steps_done: training steps behind this attempt, over all stages.
  static Result<std::unique_ptr<TensorboardLog>> Open(const std::string& job_folder, int64_t epoch,
                                                      int64_t steps_done, const Clock& clock);
  ~TensorboardLog();
  TensorboardLog(const TensorboardLog&) = delete;
  TensorboardLog& operator=(const TensorboardLog&) = delete;
  // step: from 1, over all stages.
  Status Append(int64_t step, const Scalars& scalars);
  // Lines of metrics.jsonl (metrics_log.h), of one stage; steps_before: those of earlier stages.
  Status AppendSteps(int64_t steps_before, const std::string& metrics_lines);
  // The components of a report.json: "component_loss/<mode>", "component_recovered/<mode>",
  // "linear_capability".
  Status AppendReport(int64_t step, const std::string& report_path);

 private:
  TensorboardLog(std::string path, std::FILE* file, const Clock& clock);
  Status Write(int64_t step, const std::string& content);
  const std::string path_;
  std::FILE* const file_;
  const Clock& clock_;
};

// Of a line of metrics.jsonl: "<stage>/loss", "<stage>/learning_rate", "<stage>/tokens_per_second"
// (not where the step is another job's); of a transfer "<stage>_layers/layer_03", of a finetune
// "<stage>/grad_norm" and "<stage>/window_dropped".
Scalars StepScalars(const std::string& metrics_line);

}  // namespace tandem
