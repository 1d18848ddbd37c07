// The steps of a job that its attempts wrote down (metrics_log.h), as one history: where an attempt
// repeated steps of an earlier one, the later attempt's line counts.
//
// Reads files only; rank 0, after training. Lines that cannot be read (a crash in the middle of
// one) are skipped.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "base/status.h"

namespace tandem {

// By (stage_index, step from 1): the line as it stands.
using MetricsHistory = std::map<std::pair<int64_t, int64_t>, std::string>;

// <job>/attempts/<epoch>/metrics.jsonl of all epochs up to `epoch`.
Result<MetricsHistory> ReadMetricsHistory(const std::string& job_folder, int64_t epoch);

// The lines of one stage, each with its line end.
std::string LinesOfStage(const MetricsHistory& history, int64_t stage_index);
// Of a stage whose steps another job took: {"loss": ...} -> {"loss": ..., "reused": true}, because
// nobody spent these seconds now.
std::string MarkedAsReused(const std::string& lines);

// What a stage's losses say of it, in words, or empty: the end is far above the start. A loss that
// is not finite ends the attempt; one that climbs and stays up does not, and must be told.
std::string DivergenceWords(const MetricsHistory& history, int64_t stage_index);

// How far the last step of a transfer by weights was from the teacher: {"stage_index", "layers": KL
// of each, "mean", "worst_layer"}, in nats per row, as JSON; empty where no line tells it.
std::string TransferDivergence(const MetricsHistory& history, int64_t stage_index);

}  // namespace tandem
