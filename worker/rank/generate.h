// tandem-rank --generate FILE: writes text as token ids, from a converted model or a base model.
//
// FILE is one JSON object: {"version": 1, "model": folder, "mode": "served" | "softmax" | "hybrid"
// | "window_only" | "linear_only", "prompt": [ids], "max_tokens", "temperature", "top_p", "seed",
// "stop": [ids], "threads" (0: ATen's choice), "device": "cpu" | "cuda", "dtype": "float32" |
// "bfloat16"}. Every key is needed; unknown ones are refused. A base model is served in mode
// softmax and has no other. device and dtype mean what parallelism.device and model.dtype mean in a
// job file (worker/model/device.h).
//
// stdout: one JSON object a line, flushed as it comes:
//   {"event": "prompt", "tokens", "seconds", "mode", "state_bytes"}
//   {"token": id}                                     each, stop tokens not included
//   {"event": "done", "reason": "stop" | "length", "tokens", "seconds", "tokens_per_second",
//    "state_bytes", "peak_memory_bytes", "peak_device_bytes"}
//                         state: what the model remembers of the text; device: 0 on the CPU
//   {"event": "failed", "message"}                    instead of the rest
// Exit codes: RankExit. Needs neither MPI nor an agent. One thread besides ATen's.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "worker/plan/messages.h"
#include "worker/rank/sample_token.h"

namespace tandem {

struct GenerateRequest {
  std::string model;
  std::string mode = "served";
  std::vector<int64_t> prompt;  // 1 or more
  int64_t max_tokens = 256;
  Sampling sampling;
  std::vector<int64_t> stop;
  int64_t threads = 0;
  std::string device = "cpu", dtype = "float32";
};

// All violations at once.
Result<GenerateRequest> ParseGenerateRequest(const std::string& json);

RankExit GenerateFromFile(const std::string& path);

}  // namespace tandem
