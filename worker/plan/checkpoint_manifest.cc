#include "worker/plan/checkpoint_manifest.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <tuple>

#include "base/digest.h"
#include "base/files.h"

namespace tandem {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr int64_t kMaxManifestBytes = int64_t{16} << 20;
constexpr const char* kDigestKey = ",\n\"sha256\": \"";

std::string ManifestPath(const std::string& folder) {
  return JoinPath(folder, kCheckpointManifestName);
}

// Collects what is missing or of a wrong type.
class Fields {
 public:
  Fields(const json& object, std::string path) : object_(object), path_(std::move(path)) {}
  void Take(const char* key, std::string* out) {
    if (object_.contains(key) && object_[key].is_string()) {
      *out = object_[key].get<std::string>();
    } else {
      Miss(key, "a string");
    }
  }
  template <typename Integer>
  void Take(const char* key, Integer* out) {
    if (object_.contains(key) && object_[key].is_number_integer() &&
        object_[key].get<int64_t>() >= 0) {
      *out = static_cast<Integer>(object_[key].get<int64_t>());
    } else {
      Miss(key, "an integer, 0 or more");
    }
  }
  const std::string& wrong() const { return wrong_; }

 private:
  void Miss(const char* key, const char* needed) {
    wrong_ += (wrong_.empty() ? "" : ", ") + path_ + key + " must be " + needed;
  }
  const json& object_;
  std::string path_, wrong_;
};

Status ParseFiles(const json& root, const std::string& where, CheckpointManifest* manifest) {
  if (!root.contains("files") || !root["files"].is_array() || root["files"].empty()) {
    return DataLoss(where + ": files must be a list with at least one file");
  }
  for (const json& entry : root["files"]) {
    if (!entry.is_object()) return DataLoss(where + ": files must hold objects");
    CheckpointFile file;
    Fields fields(entry, "files[" + std::to_string(manifest->files.size()) + "].");
    fields.Take("name", &file.name);
    fields.Take("bytes", &file.bytes);
    fields.Take("crc32c", &file.crc32c);
    fields.Take("sha256", &file.sha256);
    if (!fields.wrong().empty()) return DataLoss(where + ": " + fields.wrong());
    if (file.name.find('/') != std::string::npos || file.name.empty() || file.name == "..") {
      return DataLoss(where + ": '" + file.name + "' is not a plain file name");
    }
    manifest->files.push_back(std::move(file));
  }
  return Status::Ok();
}

// The number behind a prefix, or nothing: "step-0012" -> 12; "step-12.bad" -> none.
std::optional<int64_t> NumberAfter(const std::string& name, const std::string& prefix) {
  if (!name.starts_with(prefix)) return std::nullopt;
  const std::string digits = name.substr(prefix.size());
  if (digits.empty() || digits.size() > 18 ||
      digits.find_first_not_of("0123456789") != std::string::npos) {
    return std::nullopt;
  }
  return std::stoll(digits);
}

struct Candidate {
  int64_t global_step = 0, epoch = 0;
  std::string folder;
};

// Every committed-looking folder of epochs below the limit, newest first.
Result<std::vector<Candidate>> ListCandidates(const std::string& root, int64_t below_epoch) {
  std::vector<Candidate> found;
  if (!PathExists(root)) return found;
  TANDEM_ASSIGN_OR_RETURN(const auto epochs, ListFolder(root));
  for (const std::string& name : epochs) {
    const auto epoch = NumberAfter(name, "e");
    if (!epoch || *epoch >= below_epoch) continue;
    const std::string folder = JoinPath(root, name);
    TANDEM_ASSIGN_OR_RETURN(const auto steps, ListFolder(folder));
    for (const std::string& step_name : steps) {
      const auto step = NumberAfter(step_name, "step-");
      if (step) found.push_back({*step, *epoch, JoinPath(folder, step_name)});
    }
  }
  std::sort(found.begin(), found.end(), [](const Candidate& a, const Candidate& b) {
    return std::tie(a.global_step, a.epoch) > std::tie(b.global_step, b.epoch);
  });
  return found;
}

Status Quarantine(const std::string& folder, std::vector<std::string>* quarantined) {
  std::string bad = folder + ".bad";
  for (int i = 2; PathExists(bad); ++i) bad = folder + ".bad-" + std::to_string(i);
  TANDEM_RETURN_IF_ERROR(RenameDurably(folder, bad));
  if (quarantined != nullptr) quarantined->push_back(bad);
  return Status::Ok();
}

// A checkpoint is bad when its bytes are; a disk that cannot be read is another failure, and not
// its fault.
bool IsDamage(const Status& status) {
  return status.code() == Code::kDataLoss || status.code() == Code::kNotFound ||
         status.code() == Code::kInvalidArgument;
}

}  // namespace

std::string CheckpointEpochFolder(const std::string& job_folder, int64_t epoch) {
  return JoinPath(JoinPath(job_folder, "checkpoints"), "e" + std::to_string(epoch));
}

std::string CheckpointStepName(int64_t global_step) {
  char name[32];
  std::snprintf(name, sizeof name, "step-%012lld", static_cast<long long>(global_step));
  return name;
}

std::string CheckpointManifestToJson(const CheckpointManifest& manifest) {
  ordered_json root = {{"schema", manifest.schema},
                       {"job_uid", manifest.job_uid},
                       {"spec_sha256", manifest.spec_sha256},
                       {"base_sha256", manifest.base_sha256},
                       {"epoch", manifest.epoch},
                       {"stage_index", manifest.stage_index},
                       {"stage", manifest.stage},
                       {"stage_step", manifest.stage_step},
                       {"global_step", manifest.global_step}};
  root["layout"] = {{"data", manifest.data_parallel}, {"tensor", manifest.tensor_parallel}};
  root["parent"] = manifest.parent;
  root["files"] = ordered_json::array();
  for (const CheckpointFile& file : manifest.files) {
    root["files"].push_back({{"name", file.name},
                             {"bytes", file.bytes},
                             {"crc32c", file.crc32c},
                             {"sha256", file.sha256}});
  }
  std::string text = root.dump(1);
  text.resize(text.rfind('\n'));  // the closing brace comes after the digest
  return text + kDigestKey + Sha256Hex(text) + "\"\n}\n";
}

Result<CheckpointManifest> CheckpointManifestFromJson(const std::string& text,
                                                      const std::string& where) {
  const size_t at = text.rfind(kDigestKey);
  if (at == std::string::npos) return DataLoss(where + " has no sha256 at its end");
  const std::string digest = Sha256Hex(std::string_view(text).substr(0, at));
  if (text.substr(at) != kDigestKey + digest + "\"\n}\n") {
    return DataLoss(where + " does not match its sha256: it is damaged");
  }
  const json root = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object()) return DataLoss(where + " is not a JSON object");
  CheckpointManifest manifest;
  Fields fields(root, "");
  fields.Take("schema", &manifest.schema);
  fields.Take("job_uid", &manifest.job_uid);
  fields.Take("spec_sha256", &manifest.spec_sha256);
  fields.Take("base_sha256", &manifest.base_sha256);
  fields.Take("epoch", &manifest.epoch);
  fields.Take("stage_index", &manifest.stage_index);
  fields.Take("stage", &manifest.stage);
  fields.Take("stage_step", &manifest.stage_step);
  fields.Take("global_step", &manifest.global_step);
  fields.Take("parent", &manifest.parent);
  const json layout = root.value("layout", json::object());
  Fields layout_fields(layout, "layout.");
  layout_fields.Take("data", &manifest.data_parallel);
  layout_fields.Take("tensor", &manifest.tensor_parallel);
  const std::string wrong = fields.wrong() + layout_fields.wrong();
  if (!wrong.empty()) return DataLoss(where + ": " + wrong);
  if (manifest.schema != kCheckpointSchema) {
    return FailedPrecondition(where + ": schema is " + std::to_string(manifest.schema) +
                              "; this program reads " + std::to_string(kCheckpointSchema));
  }
  TANDEM_RETURN_IF_ERROR(ParseFiles(root, where, &manifest));
  return manifest;
}

Result<CheckpointFile> DescribeCheckpointFile(const std::string& folder, const std::string& name) {
  const std::string path = JoinPath(folder, name);
  std::ifstream in(path, std::ios::binary);
  if (!in) return ErrnoStatus(path);
  CheckpointFile file;
  file.name = name;
  Sha256 sha;
  std::vector<char> buffer(1 << 20);
  while (in) {
    in.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
    const auto got = static_cast<size_t>(in.gcount());
    sha.Update(buffer.data(), got);
    file.crc32c = Crc32c(buffer.data(), got, file.crc32c);
    file.bytes += static_cast<int64_t>(got);
  }
  if (in.bad()) return ErrnoStatus(path);
  file.sha256 = sha.FinishHex();
  return file;
}

Status WriteCheckpointManifest(const std::string& folder, const CheckpointManifest& manifest) {
  return WriteFileDurably(ManifestPath(folder), CheckpointManifestToJson(manifest));
}

Result<CheckpointManifest> ReadCheckpointManifest(const std::string& folder) {
  const std::string path = ManifestPath(folder);
  TANDEM_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxManifestBytes));
  return CheckpointManifestFromJson(text, path);
}

Result<CheckpointManifest> VerifyCheckpoint(const std::string& folder) {
  TANDEM_ASSIGN_OR_RETURN(CheckpointManifest manifest, ReadCheckpointManifest(folder));
  for (const CheckpointFile& promised : manifest.files) {
    TANDEM_ASSIGN_OR_RETURN(const CheckpointFile found,
                            DescribeCheckpointFile(folder, promised.name));
    if (found.bytes != promised.bytes || found.sha256 != promised.sha256) {
      return DataLoss(JoinPath(folder, promised.name) + " has " + std::to_string(found.bytes) +
                      " bytes and the digest " + found.sha256 + "; the manifest promises " +
                      std::to_string(promised.bytes) + " and " + promised.sha256);
    }
  }
  return manifest;
}

Result<std::optional<std::string>> FindNewestCheckpoint(const std::string& job_folder,
                                                        const std::string& spec_sha256,
                                                        int64_t below_epoch,
                                                        std::vector<std::string>* quarantined) {
  const std::string root = AbsolutePath(JoinPath(job_folder, "checkpoints"));
  TANDEM_ASSIGN_OR_RETURN(const auto candidates, ListCandidates(root, below_epoch));
  for (const Candidate& candidate : candidates) {
    const Result<CheckpointManifest> manifest = VerifyCheckpoint(candidate.folder);
    if (!manifest.ok()) {
      if (!IsDamage(manifest.status())) return manifest.status();
      TANDEM_RETURN_IF_ERROR(Quarantine(candidate.folder, quarantined));
      continue;
    }
    // Another spec's state is whole, but not this job's.
    if (!spec_sha256.empty() && manifest->spec_sha256 != spec_sha256) continue;
    return std::optional<std::string>(candidate.folder);
  }
  return std::optional<std::string>();
}

}  // namespace tandem
