#include "worker/model/model_digest.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "base/digest.h"
#include "base/files.h"
#include "worker/model/safetensors.h"

namespace tandem {
namespace {

// In the order of paths; several files at once, on as many threads as there are cores.
std::vector<Result<std::string>> DigestFiles(const std::vector<std::string>& paths) {
  std::vector<Result<std::string>> digests(paths.size(), std::string());
  std::atomic<size_t> next{0};
  const auto take_files = [&] {
    for (size_t i = next++; i < paths.size(); i = next++) digests[i] = Sha256OfFile(paths[i]);
  };
  std::vector<std::jthread> others;
  const size_t threads = std::min<size_t>(paths.size(), std::thread::hardware_concurrency());
  for (size_t i = 1; i < threads; ++i) others.emplace_back(take_files);
  take_files();
  others.clear();  // joins
  return digests;
}

}  // namespace

Result<ModelDigest> DigestModel(const std::string& directory) {
  TANDEM_ASSIGN_OR_RETURN(const SafetensorsModel model, SafetensorsModel::Open(directory));
  std::vector<std::string> paths = model.FilePaths();
  paths.push_back(JoinPath(directory, "config.json"));
  for (const char* optional : {"model.safetensors.index.json", "tokenizer.json"}) {
    const std::string path = JoinPath(directory, optional);
    if (PathExists(path)) paths.push_back(path);
  }
  std::vector<Result<std::string>> digests = DigestFiles(paths);
  ModelDigest digest;
  for (size_t i = 0; i < paths.size(); ++i) {
    const std::string name = paths[i].substr(paths[i].rfind('/') + 1);
    TANDEM_ASSIGN_OR_RETURN(digest.files[name], std::move(digests[i]));
  }
  Sha256 sum;
  for (const auto& [name, sha256] : digest.files) sum.Update(name + " " + sha256 + "\n");
  digest.sha256 = sum.FinishHex();
  return digest;
}

}  // namespace tandem
