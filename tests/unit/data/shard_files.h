// Writes token shards for tests, as python/tandem/prepare.py does.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "base/files.h"

namespace tandem {

struct ShardFiles {
  std::string bin, idx;
};

template <typename T>
void AppendRaw(std::string* out, T value) {
  out->append(reinterpret_cast<const char*>(&value), sizeof value);
}

// u16 ids, or u8 labels.
template <typename T = uint16_t>
ShardFiles MakeShard(const std::vector<std::vector<T>>& documents) {
  ShardFiles files;
  files.idx.append("MMIDIDX\0\0", 9);
  AppendRaw<uint64_t>(&files.idx, 1);
  AppendRaw<uint8_t>(&files.idx, sizeof(T) == 1 ? 1 : 8);
  AppendRaw<uint64_t>(&files.idx, documents.size());
  AppendRaw<uint64_t>(&files.idx, documents.size() + 1);
  for (const auto& ids : documents) AppendRaw(&files.idx, static_cast<int32_t>(ids.size()));
  for (const auto& ids : documents) {
    AppendRaw(&files.idx, static_cast<int64_t>(files.bin.size()));
    for (const T id : ids) AppendRaw(&files.bin, id);
  }
  for (size_t i = 0; i <= documents.size(); ++i) AppendRaw(&files.idx, static_cast<int64_t>(i));
  return files;
}

inline Status WriteShard(const std::string& prefix, const ShardFiles& files) {
  TANDEM_RETURN_IF_ERROR(WriteFileDurably(prefix + ".bin", files.bin));
  return WriteFileDurably(prefix + ".idx", files.idx);
}

}  // namespace tandem
