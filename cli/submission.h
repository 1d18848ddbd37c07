// How `tandem run` and `tandem sweep` hand in a job so that the same command goes on with it: the
// request id is a digest of what is asked and where, so that asking again finds the same job.
#pragma once

#include <set>
#include <string>

#include "base/status.h"
#include "cli/client.h"

namespace tandem::cli {

// The job of this spec in this place, new or as it stands; a job that failed or was cancelled is
// tried anew. verb: "run", "sweep"; place: the work folder, or "" on a cluster.
Result<v1::Job> SubmitOnce(Client& client, const v1::JobSpec& spec, const std::string& verb,
                           const std::string& place);

// Unfinished jobs of other files would take the slots first. Tells each one on stderr.
Status CancelOthers(Client& client, const std::set<std::string>& own_uids);

}  // namespace tandem::cli
