// StageCache: a training stage that another job has done already is loaded instead of run.
//
// A stage's result is a pure function of the base, the tokens, the seed, the attention's form in
// training, the stages up to it, and of ranks and threads, which decide the order of sums. These
// are hashed; the entry of that name, <cache>/<key>/, holds a checkpoint of the result, verified by
// its digests when read, and the stage's lines of metrics. An entry appears whole or not at all
// (written aside, renamed); of two jobs that make it at once, one wins, and both are right.
// Failures of the cache never fail a job: a broken entry is a miss, a full disk is logged. The
// cache is kept below kMaxStageCacheBytes: whoever stores an entry removes the least recently used
// ones, but none that a job is reading (cache_folder.h). Rank 0 writes; Load runs on all ranks.
// Training thread only.
#pragma once

#include <cstdint>
#include <string>

#include "worker/checkpoint/checkpoint.h"
#include "worker/plan/plan.h"
#include "worker/rank/cache_folder.h"

namespace tandem {

// Some 75 transfers of an 8B model, thousands of a small one.
inline constexpr int64_t kMaxStageCacheBytes = 10'000'000'000;

class StageCache {
 public:
  StageCache(const Plan& plan, const std::string& base_sha256,
             int64_t max_bytes = kMaxStageCacheBytes);

  // The entry's name, 64 hex digits; empty: the plan names no cache.
  std::string KeyOf(int64_t stage_index) const;
  // What the entry holds; empty tensors: no such entry, or a broken one. While it lives the entry's
  // files stay: other ranks read them, too.
  struct Entry {
    NamedTensors tensors;
    std::string metrics;  // lines of metrics.jsonl
    FolderLease lease;
  };
  Entry Load(const std::string& key) const;
  void Store(const std::string& key, int64_t stage_index, const NamedTensors& tensors,
             const std::string& metrics) const;

 private:
  const Plan& plan_;
  std::string base_sha256_;
  int64_t max_bytes_;
};

}  // namespace tandem
