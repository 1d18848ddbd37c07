// Plan: all that a rank is told about its attempt. The agent writes it as plan.json, every rank
// reads the same file.
//
// The rank's number and the number of ranks come from MPI, never from here. Immutable once read.
// Parsing is strict: an unknown or missing key, a wrong type or an impossible value is
// kInvalidArgument with the key's path, and the rank leaves with exit code 10. Knows JSON and base
// only: the agent (protobuf) and the rank (torch) meet here.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"

namespace tandem {

inline constexpr int kPlanVersion = 1;

// A key/value head of a layer, with its query heads, that stays softmax.
struct RetainedGroup {
  int64_t layer = 0;
  int64_t group = 0;
};

struct AttentionPlan {
  std::string feature_map_kind = "hedgehog";  // hedgehog, exp, exp_shifted, relu, elu
  int64_t feature_dim = 64;                   // f; the features are 2f wide if two-sided, else f
  bool feature_map_two_sided = true;          // of u and of -u
  bool feature_map_bias = false;              // u = x W + b
  bool tie_kv_heads = false;                  // one k map per key/value head
  std::string window_kind = "sliding";        // sliding, terraced
  int64_t window_size = 64;
  int64_t window_sinks = 0;
  bool window_align_end = false;          // terraced blocks end with the sequence
  std::string max_grad = "through";       // through, detach
  std::string linear_span = "outside";    // outside, all
  std::string mixing_factor = "sigmoid";  // sigmoid, exp
  double mixing_initial = 0.1;
  std::string mixing_kind = "shared";   // shared, mass (never trained)
  bool mixing_affine = false;           // the linear branch weighs 1 - the window factor
  double window_gain = 1;               // multiplies the window factor, except in training
  int64_t cache_size = 0;               // sparse decode cache: for the export alone
  std::string compat = "none";          // none, lolcats
  std::vector<RetainedGroup> retained;  // ascending by layer, then group
  int64_t retain_auto = 0;  // choose so many before training; then retained is empty here
};

// What a feature map is where only its kind is said (method.md §2).
bool IsTwoSidedKind(const std::string& feature_map_kind);
bool IsBiasedKind(const std::string& feature_map_kind);

// One training stage; `kind` says which fields count.
struct StagePlan {
  std::string kind;  // attention_transfer, finetune
  // attention_transfer: weights, outputs, hybrid_outputs, hybrid_weights, mixture
  std::string objective = "weights";
  double mixture_weights = 1, mixture_outputs = 0, mixture_hybrid_outputs = 1;
  std::string mode = "hybrid";  // finetune: hybrid, linear_only, window_only
  int64_t steps = 0;
  int64_t batch_size = 1;  // sequences per step over all ranks; a multiple of the number of ranks
  double learning_rate = 0;
  int64_t warmup_steps = 0;
  // finetune
  std::string loss = "next_token";  // next_token, distill, mixture
  double distill_weight = 0.5;      // of distill in mixture
  bool train_maps = false;
  bool train_factor = false;
  double clip_norm = 1.0;  // 0: no clipping
  int64_t lora_rank = 8;
  double lora_alpha = 16;
  std::vector<std::string> lora_targets;  // q_proj, k_proj, v_proj, o_proj
  std::vector<double> ssd_schedule;       // empty: no dropout
  std::string ssd_granularity = "micro_batch";
  std::string ssd_dropped_span = "all";      // all, outside
  std::vector<int64_t> ssd_window_schedule;  // empty: the window's size throughout
  // finetune: stop when this component's validation loss exceeds its value at the stage's start
  std::string stop_component = "none";  // none, hybrid, window_only, linear_only
  double stop_slack = 0;                // nats
  // attention_transfer: stop each layer when its validation loss no longer falls
  int64_t stop_patience = 0;     // measurements without a gain; 0: never
  double stop_min_gain = 0.001;  // share of the loss
  // both
  int64_t stop_every = 25;  // steps
  int64_t stop_sequences = 16;
};

struct DataPlan {
  // Folders of token shards (python/tandem/prepare.py): train.bin/.idx, validation.bin/.idx,
  // passkey.json, manifest.json; where labels are masked, train.mask.bin/.idx (u8, 1: a label);
  // suites.json and long_range.json where the plan's evaluation says so
  std::string tokens;
  int64_t sequence_length = 512;
  bool document_mask = false;  // attention stays inside a document
};

struct EvaluatePlan {
  int64_t sequences = 64;
  int64_t sinks = 8;
  int64_t bootstrap = 1000;
  bool passkey = true;      // prompts are in <data.tokens>/passkey.json
  bool long_range = false;  // prompts are in <data.tokens>/long_range.json
  bool suites = false;      // items are in <data.tokens>/suites.json
  std::vector<std::string> suite_modes = {"softmax", "hybrid", "window_only", "linear_only"};
  std::vector<int64_t> lengths;  // further evaluation lengths
  std::string control;           // report.json of a window_control job, or empty
};

struct Plan {
  int version = kPlanVersion;
  std::string job_uid;
  std::string job_name;
  int64_t epoch = 0;
  uint64_t seed = 0;
  std::string recipe;  // or empty
  std::string model;   // the base's directory
  // Recipe diagnose: a converted model (worker/export) whose maps, factors and weights are
  // measured; `model` is then the softmax reference, possibly the same directory. Else empty.
  std::string converted;
  std::string served_mode = "hybrid";  // hybrid, linear_only, window_only
  std::string device = "cpu";          // cpu, cuda
  std::string base_dtype = "float32";  // float32, bfloat16: the frozen base computes in it
  std::string job_folder;              // <work>/jobs/<uid>
  std::string attempt_folder;          // <job_folder>/attempts/<epoch>
  std::string socket;  // the agent's unix socket; empty: no agent (tests), messages are dropped
  std::string resume_from;  // a committed checkpoint directory, or empty
  std::string spec_sha256;  // of the resolved spec; checkpoints of another spec are refused
  std::string spec_json;    // the resolved spec, for the export's manifest; opaque to the rank
  int64_t ranks = 1;
  int64_t threads_per_rank = 1;
  AttentionPlan attention;
  DataPlan data;
  std::vector<StagePlan> stages;  // training stages; evaluate and export follow
  EvaluatePlan evaluate;
  std::string export_dtype = "float32";
  bool export_adapter = false;
  bool export_delta = false;
  int64_t export_max_shard_mb = 5000;
  std::string stage_cache;  // folder of reusable stages' results, or empty
  std::string
      export_classes;  // folder of configuration_hybrid_linear.py and modeling_hybrid_linear.py
  int64_t checkpoint_every_steps = 0;    // 0: off
  double checkpoint_every_seconds = 60;  // 0: off
  int64_t checkpoint_keep = 2;
};

// Pretty-printed JSON with every key.
std::string PlanToJson(const Plan& plan);
// All violations at once, one a line.
Result<Plan> PlanFromJson(const std::string& json);

}  // namespace tandem
