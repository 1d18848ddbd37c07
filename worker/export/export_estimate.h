// What an export will take, said before training: the files' sizes are known from the shapes, the
// speed of the disk and of the digests from a rehearsal on one small file.
//
// time = bytes written x (write + digest) + bytes of the base x digest, which the manifest names, +
// two forward passes of the check. Reading back comes from the page cache and is not counted.
// Writes and removes one file in the job's folder: rank 0 alone, training thread.
#pragma once

#include "base/clock.h"
#include "base/status.h"
#include "worker/model/llama.h"
#include "worker/model/parameters.h"
#include "worker/plan/plan.h"

namespace tandem {

// Bytes of the exported weights, of the parts beside them and of the conversion's own tensors.
double ExportBytes(const Plan& plan, const Llama& model, const Parameters& parameters);

// seconds_per_token: of a forward pass as evaluation makes it.
Result<double> ExportSeconds(const Plan& plan, const Llama& model, const Parameters& parameters,
                             double seconds_per_token, const Clock& clock);

}  // namespace tandem
