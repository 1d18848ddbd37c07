// Label masks: which tokens of a shard are labels (method.md §7).
//
// A mask is a shard NAME.mask of u8 beside the shard NAME, 1 where the token is a label, with
// NAME's documents. Without one every token is a label. Free of state; any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "worker/data/token_shards.h"

namespace tandem {

// Of the shard `ids` at `prefix`; null where it has none. A mask of other documents is refused.
Result<std::unique_ptr<TokenShard>> OpenLabelMask(const std::string& prefix, const TokenShard& ids);

// Chunks of which some token at 1 ... T-1 is a label, ascending: the token at 0 is predicted from
// nothing.
std::vector<int64_t> LabelledChunks(const TokenShard& mask, int64_t T);

}  // namespace tandem
