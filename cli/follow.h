// Follow: watches one job until it ends, across restarts of the coordinator and times in which its
// store takes no writes; both are said when they begin and when they are over. The revision of the
// last message is kept, so nothing is missed and nothing shown twice.
//
// Run blocks its thread; Stop may be called from any other, and makes Run return soon. One Run per
// object.
#pragma once

#include <grpcpp/client_context.h>

#include <cstdint>
#include <string>

#include "base/mutex.h"
#include "base/status.h"
#include "cli/client.h"
#include "cli/progress.h"

namespace tandem::cli {

class Follower {
 public:
  // patience_ms: how long a coordinator may stay away once it has answered; 0: for ever.
  Follower(Client& client, ProgressPrinter& progress, int64_t patience_ms);

  // The job in its final state. kCancelled after Stop; kUnavailable at once if no coordinator ever
  // answered.
  Result<v1::Job> Run(const std::string& name);
  void Stop();

 private:
  // One stream to its end. True: the job has ended and *job is final.
  bool ReadStream(const std::string& name, v1::Job* job, Status* status);
  // Says what has changed about the coordinator since the message before.
  void NoteCoordinator(const v1::WatchJobsResponse& response);
  bool IsStopped();
  // False: stopped meanwhile.
  bool Pause(int64_t milliseconds);

  Client& client_;
  ProgressPrinter& progress_;
  const int64_t patience_ms_;
  int64_t revision_ = 0;
  bool has_answered_ = false;
  bool is_lost_ = false;       // said, and no answer since
  std::string store_failure_;  // of the last message

  Mutex mu_;
  CondVar wake_;
  bool stopped_ TANDEM_GUARDED_BY(mu_) = false;
  grpc::ClientContext* context_ TANDEM_GUARDED_BY(mu_) = nullptr;
};

}  // namespace tandem::cli
