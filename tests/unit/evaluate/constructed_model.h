// A Llama written by hand, whose attention does one known thing, with text on which it matters:
// conversions of it are balanced, collapsed or broken by construction.
//
// Text: a document of 64 tokens begins with 8 neutral ones; then each token is a marker of the
// document's topic (3 of 10) or a decoy of another topic. Which marker comes next is worth knowing
// the topic: ln 12 nats on three tokens of ten. Model: keys of markers match the query, keys of
// decoys oppose it (no rotation: a huge rope_theta and the slowest pair), every key votes for its
// topic, the votes raise that topic's marker. So softmax reads the topic off the markers; the
// average over all keys would read the decoys'. Linear attention with identity maps does as softmax
// does; with zero maps it is the average; with the k map negated it reads the decoys.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <map>
#include <string>
#include <vector>

#include "base/files.h"
#include "tests/unit/data/shard_files.h"
#include "worker/data/philox.h"
#include "worker/model/llama.h"
#include "worker/model/parameters.h"

namespace tandem {

inline constexpr int64_t kTopics = 12;
inline constexpr int64_t kTopicLength = 64;
inline constexpr int64_t kNeutral = 2 * kTopics;  // markers 0 ... 11, decoys 12 ... 23
inline constexpr int64_t kTopicVocab = kNeutral + 1;

// Places in the hidden state.
inline constexpr int64_t kConstant = 0, kType = 1, kTopic = 2, kVote = kTopic + kTopics;

inline ModelConfig TopicConfig() {
  ModelConfig config;
  config.hidden_size = 32;
  config.intermediate_size = 8;
  config.num_layers = 1;
  config.num_heads = 2;
  config.num_kv_heads = 1;
  config.head_dim = 16;
  config.vocab_size = kTopicVocab;
  config.max_position_embeddings = 256;
  config.rms_norm_eps = 1e-6;
  config.rope.theta = 1e12;
  return config;
}

// query_scale multiplies queries and divides keys: softmax stays the same function. value_scale
// multiplies values and divides the output projection.
struct TopicModelOptions {
  double query_scale = 1, value_scale = 1;
};

inline std::map<std::string, at::Tensor> TopicWeights(const TopicModelOptions& options = {}) {
  const int64_t D = 32, d = 16, slow = d / 2 - 1;  // the slowest pair's first place
  const auto set = [](at::Tensor& t, int64_t row, int64_t column, double value) {
    t.mutable_data_ptr<float>()[row * t.size(1) + column] = static_cast<float>(value);
  };
  at::Tensor embedding = at::zeros({kTopicVocab, D}), head = at::zeros({kTopicVocab, D});
  for (int64_t id = 0; id < kTopicVocab; ++id) {
    const bool is_marker = id < kTopics;
    set(embedding, id, kConstant, 1);
    set(embedding, id, kType, is_marker ? 1 : -1);
    if (id != kNeutral) set(embedding, id, kTopic + id % kTopics, 1);
    // Logits: decoys about 0, markers -0.85 without and 1.64 with a vote, the neutral token never.
    if (is_marker) set(head, id, kConstant, -0.28);
    if (is_marker) set(head, id, kVote + id, 0.85);
    if (id == kNeutral) set(head, id, kConstant, -3);
  }
  at::Tensor q = at::zeros({2 * d, D}), k = at::zeros({d, D}), v = at::zeros({d, D});
  at::Tensor o = at::zeros({D, 2 * d});
  for (int64_t h = 0; h < 2; ++h) set(q, h * d + slow, kConstant, 1.5 * options.query_scale);
  set(k, slow, kType, 1.5 / options.query_scale);
  for (int64_t c = 0; c < kTopics; ++c) {
    set(v, c, kTopic + c, 0.3 * options.value_scale);  // about 1 after the norm
    for (int64_t h = 0; h < 2; ++h) set(o, kVote + c, h * d + c, 0.5 / options.value_scale);
  }
  const std::string layer = "model.layers.0.";
  return {{"model.embed_tokens.weight", embedding},
          {"lm_head.weight", head},
          {"model.norm.weight", at::ones({D})},
          {layer + "input_layernorm.weight", at::ones({D})},
          {layer + "post_attention_layernorm.weight", at::ones({D})},
          {layer + "self_attn.q_proj.weight", q},
          {layer + "self_attn.k_proj.weight", k},
          {layer + "self_attn.v_proj.weight", v},
          {layer + "self_attn.o_proj.weight", o},
          {layer + "mlp.gate_proj.weight", at::zeros({8, D})},
          {layer + "mlp.up_proj.weight", at::zeros({8, D})},
          {layer + "mlp.down_proj.weight", at::zeros({D, 8})}};
}

inline std::vector<uint16_t> TopicDocument(int64_t index) {
  const PhiloxStream stream(17, index, RandomPurpose::kTest);
  const int64_t topic = stream.Below(kTopics, 0);
  const int64_t other = (topic + 1 + stream.Below(kTopics - 1, 1)) % kTopics;
  std::vector<uint16_t> ids;
  for (int64_t t = 0; t < kTopicLength; ++t) {
    const bool is_marker = stream.Uniform(2, t) < 0.3;
    ids.push_back(static_cast<uint16_t>(t < 8 ? kNeutral : is_marker ? topic : kTopics + other));
  }
  return ids;
}

// `documents` chunks of kTopicLength tokens, and one token more, as the last chunk wants it.
inline Status WriteTopicText(const std::string& prefix, int64_t documents) {
  std::vector<std::vector<uint16_t>> texts;
  for (int64_t i = 0; i < documents; ++i) texts.push_back(TopicDocument(i));
  texts.push_back({static_cast<uint16_t>(kNeutral)});
  return WriteShard(prefix, MakeShard(texts));
}

}  // namespace tandem
