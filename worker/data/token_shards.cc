#include "worker/data/token_shards.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/files.h"

namespace tandem {
namespace {

constexpr char kMagic[9] = {'M', 'M', 'I', 'D', 'I', 'D', 'X', '\0', '\0'};
constexpr size_t kHeadBytes = 9 + 8 + 1 + 8 + 8;
constexpr int64_t kMaxIndexBytes = int64_t{1} << 32;

template <typename T>
T LoadAt(const std::string& bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

// Ends and id width from the index; the caller compares with the data's size.
Status ParseIndex(const std::string& index, const std::string& where, int* id_bytes,
                  std::vector<int64_t>* begins) {
  if (index.size() < kHeadBytes || std::memcmp(index.data(), kMagic, sizeof kMagic) != 0) {
    return InvalidArgument(where + " does not start with MMIDIDX; a Megatron index is needed");
  }
  const auto version = LoadAt<uint64_t>(index, 9);
  if (version != 1) {
    return InvalidArgument(where + ": version is " + std::to_string(version) + "; must be 1");
  }
  const int dtype = LoadAt<uint8_t>(index, 17);
  if (dtype != 1 && dtype != 4 && dtype != 8) {
    return InvalidArgument(where + ": dtype is " + std::to_string(dtype) +
                           "; allowed: 1 (uint8), 4 (int32), 8 (uint16)");
  }
  *id_bytes = dtype == 8 ? 2 : dtype;
  const auto n = LoadAt<uint64_t>(index, 18);
  const auto m = LoadAt<uint64_t>(index, 26);
  const uint64_t limit = static_cast<uint64_t>(kMaxIndexBytes);
  if (n > limit || m > limit || index.size() != kHeadBytes + n * 12 + m * 8) {
    return InvalidArgument(where + " has " + std::to_string(index.size()) + " bytes; " +
                           std::to_string(n) + " sequences and " + std::to_string(m) +
                           " document indices do not fit: it is cut short or damaged");
  }
  begins->assign(1, 0);
  for (size_t i = 0; i < n; ++i) {
    const auto length = LoadAt<int32_t>(index, kHeadBytes + 4 * i);
    const auto offset = LoadAt<int64_t>(index, kHeadBytes + 4 * n + 8 * i);
    if (length <= 0) {
      return InvalidArgument(where + ": length of sequence " + std::to_string(i) + " is " +
                             std::to_string(length) + "; must be above 0");
    }
    if (offset != begins->back() * *id_bytes) {
      return InvalidArgument(where + ": sequence " + std::to_string(i) + " begins at byte " +
                             std::to_string(offset) + "; must be " +
                             std::to_string(begins->back() * *id_bytes) +
                             " (one after the other, no hole)");
    }
    begins->push_back(begins->back() + length);
  }
  return Status::Ok();
}

}  // namespace

Result<std::unique_ptr<TokenShard>> TokenShard::Open(const std::string& prefix) {
  const std::string data = prefix + ".bin";
  TANDEM_ASSIGN_OR_RETURN(const std::string index, ReadFile(prefix + ".idx", kMaxIndexBytes));
  std::unique_ptr<TokenShard> shard(new TokenShard);
  TANDEM_RETURN_IF_ERROR(ParseIndex(index, prefix + ".idx", &shard->id_bytes_, &shard->begins_));
  const int fd = open(data.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(data);
  struct stat info {};
  const int64_t promised = shard->num_tokens() * shard->id_bytes_;
  Status failed;
  if (fstat(fd, &info) != 0) {
    failed = ErrnoStatus(data);
  } else if (info.st_size != promised) {
    failed = InvalidArgument(data + " has " + std::to_string(info.st_size) +
                             " bytes; its index promises " + std::to_string(promised));
  } else if (promised > 0) {
    void* mapping = mmap(nullptr, static_cast<size_t>(promised), PROT_READ, MAP_PRIVATE, fd, 0);
    if (mapping == MAP_FAILED) {
      failed = ErrnoStatus(data);
    } else {
      shard->mapping_ = mapping;
      shard->mapping_bytes_ = static_cast<size_t>(promised);
    }
  }
  close(fd);
  if (!failed.ok()) return failed;
  return shard;
}

TokenShard::~TokenShard() {
  if (mapping_ != nullptr) munmap(mapping_, mapping_bytes_);
}

void TokenShard::Read(int64_t begin, int64_t count, int64_t* ids) const {
  TANDEM_CHECK_MSG(begin >= 0 && count >= 0 && begin + count <= num_tokens(),
                   "tokens " + std::to_string(begin) + " + " + std::to_string(count) + " of " +
                       std::to_string(num_tokens()));
  if (id_bytes_ == 1) {
    const auto* from = static_cast<const uint8_t*>(mapping_) + begin;
    std::copy(from, from + count, ids);
  } else if (id_bytes_ == 2) {
    const auto* from = static_cast<const uint16_t*>(mapping_) + begin;
    std::copy(from, from + count, ids);
  } else {
    // A negative id reads as a huge one, which no vocabulary admits.
    const auto* from = static_cast<const uint32_t*>(mapping_) + begin;
    std::copy(from, from + count, ids);
  }
}

std::vector<int64_t> TokenShard::DocumentStarts(int64_t begin, int64_t count) const {
  const auto first = std::upper_bound(begins_.begin(), begins_.end(), begin);
  const auto last = std::lower_bound(first, begins_.end(), begin + count);
  std::vector<int64_t> starts(first, last);
  for (int64_t& start : starts) start -= begin;
  return starts;
}

int64_t TokenShard::MaxId() const {
  int64_t largest = -1;
  std::vector<int64_t> ids(1 << 16);
  for (int64_t at = 0; at < num_tokens(); at += static_cast<int64_t>(ids.size())) {
    const int64_t count = std::min<int64_t>(num_tokens() - at, static_cast<int64_t>(ids.size()));
    Read(at, count, ids.data());
    largest = std::max(largest, *std::max_element(ids.begin(), ids.begin() + count));
  }
  return largest;
}

}  // namespace tandem
