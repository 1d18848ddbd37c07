#include "worker/agent/outbox.h"

#include "base/files.h"
#include "base/log.h"

namespace tandem::agent {

Result<Outbox> Outbox::Open(const std::string& folder) {
  TANDEM_RETURN_IF_ERROR(MakeFolders(folder));
  Outbox outbox(folder);
  TANDEM_ASSIGN_OR_RETURN(const auto names, ListFolder(folder));
  for (const std::string& name : names) {
    const std::string path = JoinPath(folder, name);
    if (!name.ends_with(".pb")) continue;
    TANDEM_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path));
    v1::AttemptStatus status;
    if (!status.ParseFromString(bytes) || status.attempt().job_uid().empty()) {
      Log(LogLevel::kError, "outbox_file_unreadable", {{"path", path}});
      TANDEM_RETURN_IF_ERROR(RenameDurably(path, path + ".bad"));
      continue;
    }
    outbox.pending_[{status.attempt().job_uid(), status.attempt().epoch()}] = std::move(status);
  }
  return outbox;
}

std::string Outbox::PathOf(const Key& key) const {
  return JoinPath(folder_, key.first + "-" + std::to_string(key.second) + ".pb");
}

Status Outbox::Put(const v1::AttemptStatus& ended) {
  const Key key{ended.attempt().job_uid(), ended.attempt().epoch()};
  pending_[key] = ended;  // also when the disk is full: it is sent, only a crash would lose it
  return WriteFileDurably(PathOf(key), ended.SerializeAsString());
}

void Outbox::Acknowledge(const std::string& job_uid, int64_t epoch) {
  const Key key{job_uid, epoch};
  if (pending_.erase(key) == 0) return;
  const Status removed = RemoveTree(PathOf(key));
  if (!removed.ok()) Log(LogLevel::kWarning, "outbox_not_cleared", {{"reason", removed.message()}});
}

}  // namespace tandem::agent
