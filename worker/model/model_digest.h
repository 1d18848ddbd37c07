// ModelDigest: the name of a base model by its content. Torch-free.
//
// Checkpoints, the export's manifest and the cache of stages say with it which base they belong to.
// Reads every byte of the directory's config.json, weights and tokenizer.json, each time: a digest
// remembered by size and time would be wrong in silence where a copy keeps both, and a resumed job
// would train another base. A core hashes about 1 GB/s and files are read side by side, so an 8B
// base of four files costs seconds, after the model was read into the page cache. Any thread.
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
