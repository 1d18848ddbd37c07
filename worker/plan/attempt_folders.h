// What a job's attempts left on disk: <job_folder>/attempts/<epoch>, of this attempt and of those
// before it. Reads names only; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tandem {

// Ascending; none where there is no such folder. A name that is no number is no attempt's.
std::vector<int64_t> AttemptEpochs(const std::string& job_folder);
// The steps that an attempt wrote down (worker/rank/metrics_log.h); it need not be there.
std::string MetricsPath(const std::string& job_folder, int64_t epoch);
// What preparing took (python/tandem/prepare_cost.py); it need not be there.
std::string PrepareCostPath(const std::string& job_folder, int64_t epoch);

}  // namespace tandem
