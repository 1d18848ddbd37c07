#include "worker/model/model_digest.h"

#include "base/digest.h"
#include "base/files.h"
#include "worker/model/safetensors.h"

namespace tandem {

Result<ModelDigest> DigestModel(const std::string& directory) {
  TANDEM_ASSIGN_OR_RETURN(const SafetensorsModel model, SafetensorsModel::Open(directory));
  std::vector<std::string> paths = model.FilePaths();
  paths.push_back(JoinPath(directory, "config.json"));
  for (const char* optional : {"model.safetensors.index.json", "tokenizer.json"}) {
    const std::string path = JoinPath(directory, optional);
    if (PathExists(path)) paths.push_back(path);
  }
  ModelDigest digest;
  for (const std::string& path : paths) {
    const std::string name = path.substr(path.rfind('/') + 1);
    TANDEM_ASSIGN_OR_RETURN(digest.files[name], Sha256OfFile(path));
  }
  Sha256 sum;
  for (const auto& [name, sha256] : digest.files) sum.Update(name + " " + sha256 + "\n");
  digest.sha256 = sum.FinishHex();
  return digest;
}

}  // namespace tandem
