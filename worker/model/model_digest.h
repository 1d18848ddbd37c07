// ModelDigest: the name of a base model by its content. Torch-free.
//
// Checkpoints, the export's manifest and the token cache say with it which base they belong to.
// Reads every byte of the directory's config.json, weights and tokenizer.json once. Any thread.
#pragma once

#include <map>
#include <string>

#include "base/status.h"

namespace tandem {

struct ModelDigest {
  std::map<std::string, std::string>
      files;           // name -> SHA-256: config.json, *.safetensors, index, tokenizer.json
  std::string sha256;  // of "name digest\n" over files, in order of name
};

// Files that are not there are left out, but config.json and the weights must be.
Result<ModelDigest> DigestModel(const std::string& directory);

}  // namespace tandem
