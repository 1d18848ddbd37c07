// Suites as `prepare` wrote them: tokenised requests with what it takes to score them.
//
//   <tokens>/suites.bin, .idx   a token shard (token_shards.h), one document per request: context
//                               and continuation, cut on the left to the model's length
//   <tokens>/suites.json        {"version": 1, "bos": "none" | "model", "suites": [{"name",
//     "metric": "acc" | "acc_norm" | "lambada" | "perplexity" | "exact", "items": [{
//       "first": document of its first request (an item's requests are consecutive),
//       "starts": [first token of the continuation, one per request; it ends with the request],
//       "lengths": [characters of each choice] (acc_norm),
//       "answer": the right choice (acc, acc_norm),
//       "group": "abstract_algebra" (suites that are means over groups; absent otherwise),
//       "words", "bytes": of the document (perplexity)}]}]}
// Torch-free, immutable once read. Every violation is a Status naming file, item and what is
// allowed.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "worker/data/token_shards.h"

namespace tandem {

struct SuiteItem {
  int64_t first = 0;
  std::vector<int64_t> starts;
  std::vector<double> lengths;
  int64_t answer = 0;
  std::string group;
  double words = 0, bytes = 0;
};

struct Suite {
  std::string name;
  std::string metric;
  std::vector<SuiteItem> items;  // not empty
};

struct SuiteFile {
  std::string bos;
  std::vector<Suite> suites;
  std::unique_ptr<TokenShard> requests;
};

// No suites when suites.json is not there.
Result<SuiteFile> ReadSuites(const std::string& folder, int64_t vocab_size);

}  // namespace tandem
