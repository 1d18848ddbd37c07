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

struct AttentionPlan {
  std::string feature_map_kind = "hedgehog";
  int64_t feature_dim = 64;  // f; the features are 2f wide
  std::string window_kind = "sliding";
  int64_t window_size = 64;
  int64_t window_sinks = 0;
  std::string max_grad = "through";       // through, detach
  std::string linear_span = "outside";    // outside, all
  std::string mixing_factor = "sigmoid";  // sigmoid, exp
  double mixing_initial = 0.1;
};

// One training stage; `kind` says which fields count.
struct StagePlan {
  std::string kind;                   // attention_transfer, finetune
  std::string objective = "weights";  // attention_transfer: weights, hybrid_outputs
  std::string mode = "hybrid";        // finetune: hybrid, linear_only
  int64_t steps = 0;
  int64_t batch_size = 1;  // sequences per step over all ranks; a multiple of the number of ranks
  double learning_rate = 0;
  int64_t warmup_steps = 0;
  // finetune
  bool train_maps = false;
  double clip_norm = 1.0;  // 0: no clipping
  int64_t lora_rank = 8;
  double lora_alpha = 16;
  std::vector<std::string> lora_targets;  // q_proj, k_proj, v_proj, o_proj
  std::vector<double> ssd_schedule;       // empty: no dropout
  std::string ssd_granularity = "micro_batch";
};

struct DataPlan {
  // Folders of token shards (python/tandem/prepare.py): train.bin/.idx, validation.bin/.idx,
  // passkey.json, manifest.json
  std::string tokens;
  int64_t sequence_length = 512;
};

struct EvaluatePlan {
  int64_t sequences = 64;
  int64_t sinks = 8;
  int64_t bootstrap = 1000;
  bool passkey = true;  // prompts are in <data.tokens>/passkey.json
};

struct Plan {
  int version = kPlanVersion;
  std::string job_uid;
  std::string job_name;
  int64_t epoch = 0;
  uint64_t seed = 0;
  std::string model;           // the base's directory
  std::string job_folder;      // <work>/jobs/<uid>
  std::string attempt_folder;  // <job_folder>/attempts/<epoch>
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
