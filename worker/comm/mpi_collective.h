// The collective over MPI, for CPU ranks and host agreement.
//
// Confined to the thread that made it (MPI_THREAD_FUNNELED). Errors are returned by MPI, not fatal:
// they become CollectiveLost.
#pragma once

#include <memory>

#include "worker/comm/collective.h"

namespace tandem {

// MPI_Init_thread, and MPI_Finalize when it goes; one per process. A process that must leave early
// calls Abort.
class MpiEnvironment {
 public:
  MpiEnvironment();
  ~MpiEnvironment();
  MpiEnvironment(const MpiEnvironment&) = delete;
  MpiEnvironment& operator=(const MpiEnvironment&) = delete;
};

// Over all ranks of MPI_COMM_WORLD.
std::unique_ptr<Collective> MakeMpiCollective();

// Ends every rank of the attempt with this exit code; does not return.
[[noreturn]] void AbortAllRanks(int exit_code);

}  // namespace tandem
