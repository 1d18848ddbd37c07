// Rows with every durable member set to something of its own, and a folder that goes away.
#pragma once

#include <string>

#include "coordinator/core/effect.h"

namespace tandem::store {

core::Job SampleJob(const std::string& uid);
core::Worker SampleWorker(const std::string& name);
core::JobEvent SampleEvent(core::Revision revision, const std::string& uid);
// One job, event, request and worker, as one step might write them.
core::Persist SamplePersist(core::Revision revision);

class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::string File(const std::string& name) const;

 private:
  std::string path_;
};

}  // namespace tandem::store
