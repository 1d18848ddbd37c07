// Token shards: tokenised documents as the stage `prepare` wrote them, mapped, never copied whole.
// Torch-free.
//
// A shard is a pair in Megatron's format, NAME.bin (the ids, one document after the other) and
// NAME.idx:
//   "MMIDIDX\0\0" | u64 version = 1 | u8 dtype (1: u8, 4: i32, 8: u16) | u64 sequences n | u64
//   document indices m i32 lengths[n] | i64 byte offsets[n] | i64 document index[m] (0 ... n)
// Beside it lies manifest.json: version, tokenizer_sha256, vocab_size, max_id, files {name: {bytes,
// sha256}}, ... Training reads chunks of the concatenated documents (method.md §7, packing): chunk
// c holds tokens cT ... cT+T-1, and is emitted only while more than T tokens are left, so the tail
// is dropped. Immutable after Open: any thread. Every violation is a Status naming file, value and
// what is allowed.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"

namespace tandem {

class TokenShard {
 public:
  // prefix: the path without .bin / .idx. Checks the index against the size of the data.
  static Result<std::unique_ptr<TokenShard>> Open(const std::string& prefix);
  ~TokenShard();
  TokenShard(const TokenShard&) = delete;
  TokenShard& operator=(const TokenShard&) = delete;

  int64_t num_documents() const { return static_cast<int64_t>(begins_.size()) - 1; }
  int64_t num_tokens() const { return begins_.back(); }
  // [DocumentBegin(i), DocumentBegin(i + 1)) are the tokens of document i, 0 <= i <= num_documents.
  int64_t DocumentBegin(int64_t i) const { return begins_[static_cast<size_t>(i)]; }
  // ids of tokens begin ... begin+count-1 of the concatenation; they must exist.
  void Read(int64_t begin, int64_t count, int64_t* ids) const;

  // Where documents begin among tokens begin+1 ... begin+count-1, counted from `begin`, ascending.
  std::vector<int64_t> DocumentStarts(int64_t begin, int64_t count) const;

  // Chunks of T tokens: (num_tokens - 1) / T.
  int64_t NumChunks(int64_t T) const { return num_tokens() > 0 ? (num_tokens() - 1) / T : 0; }
  void ReadChunk(int64_t chunk, int64_t T, int64_t* ids) const { Read(chunk * T, T, ids); }
  // The largest id; reads all.
  int64_t MaxId() const;

 private:
  TokenShard() = default;
  void* mapping_ = nullptr;
  size_t mapping_bytes_ = 0;
  int id_bytes_ = 2;
  std::vector<int64_t> begins_;  // in tokens, with the end last
};

// What a folder of shards must match.
struct TokenExpectations {
  std::string tokenizer_sha256;  // of <model>/tokenizer.json; empty: not checked
  int64_t vocab_size = 0;        // every id must be below; 0: not checked
  bool check_digests = true;     // reads every file once
};

// Checks manifest.json and the files it names. All violations at once. Absent validation files are
// an error here: a conversion without a held-out loss has no verdict.
Status CheckTokenFolder(const std::string& folder, const TokenExpectations& expected);

// A shard that training reads, as manifest.json lists it under train_shards; a folder without that
// key has the one shard `train`.
struct TrainShard {
  std::string name;
  double weight = 1;  // > 0
};
Result<std::vector<TrainShard>> ReadTrainShards(const std::string& folder);

struct PasskeyPrompt {
  int64_t distance = 0;      // tokens between the key and the question
  std::vector<int64_t> ids;  // all prompts have the same length
  int64_t answer_start =
      0;  // ids[answer_start ...] are the answer, scored from the logits one position before
  int64_t answer_length = 0;
};
// <folder>/passkey.json; empty when the file is not there.
Result<std::vector<PasskeyPrompt>> ReadPasskeyPrompts(const std::string& folder,
                                                      int64_t vocab_size);

}  // namespace tandem
