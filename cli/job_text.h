// Jobs and workers in words: tables, details, one line of progress. Pure: fixed input, fixed text.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/output.h"
#include "tandem/v1/fleet.pb.h"
#include "tandem/v1/job.pb.h"

namespace tandem::cli {

bool IsTerminal(v1::JobState state);
// "RUNNING"
std::string StateText(v1::JobState state);
std::string StateText(v1::WorkerState state);
// projects/default/jobs/ssd -> ssd; of other projects "team/ssd".
std::string ShortName(const std::string& name);
// workers/node1 -> node1.
std::string ShortWorkerName(const std::string& name);

// now_ms: wall clock, for ages.
std::string JobTable(const std::vector<v1::Job>& jobs, int64_t now_ms);
std::string JobDetails(const v1::Job& job, int64_t now_ms);
std::string WorkerTable(const std::vector<v1::Worker>& workers, int64_t now_ms);

// "finetune (3/5)  step 120/260  loss 3.412  4,277 tokens/s  ETA 0:42"; what is unknown is left
// out.
std::string ProgressWords(const v1::Job& job);
// The same behind a bar, cut to the style's width.
std::string ProgressBar(const v1::Job& job, const TextStyle& style);

}  // namespace tandem::cli
