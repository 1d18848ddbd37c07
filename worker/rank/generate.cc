#include "worker/rank/generate.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isnan.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/files.h"
#include "worker/evaluate/peak_memory.h"
#include "worker/export/read_export.h"
#include "worker/model/device.h"
#include "worker/model/evaluation_forward.h"
#include "worker/model/recurrent/recurrent_model.h"
#include "worker/plan/strict_json.h"
#include "worker/rank/guard.h"

namespace tandem {
namespace {

constexpr int64_t kMaxRequestBytes = int64_t{1} << 28;
constexpr size_t kMaxPromptTokens = size_t{1} << 24;

void Tell(const nlohmann::ordered_json& line) {
  const std::string text =
      line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

RankExit Fail(RankExit code, const std::string& message) {
  Tell({{"event", "failed"}, {"message", message}});
  return code;
}

double SecondsSince(int64_t begin_ns) {
  return static_cast<double>(Clock::System().MonotonicNs() - begin_ns) * 1e-9;
}

// A base model, or a converted one with its form.
struct LoadedModel {
  std::unique_ptr<Llama> model;
  std::unique_ptr<Parameters> parameters;  // null: a base model
  RecurrentOptions options;
};

Result<LoadedModel> LoadBase(const GenerateRequest& request, const ComputeDevice& device) {
  if (request.mode != "served" && request.mode != "softmax") {
    return InvalidArgument("mode is " + request.mode + " but " + request.model +
                           " is a base model; it has mode softmax alone");
  }
  LoadedModel loaded;
  TANDEM_ASSIGN_OR_RETURN(loaded.model, Llama::Load(request.model, device));
  loaded.options.mode = ComponentMode::kSoftmax;
  return loaded;
}

Result<LoadedModel> LoadModel(const GenerateRequest& request) {
  TANDEM_ASSIGN_OR_RETURN(const ComputeDevice device,
                          OpenDevice(request.device, request.dtype, /*local_rank=*/0));
  if (!IsConvertedModel(request.model)) return LoadBase(request, device);
  TANDEM_ASSIGN_OR_RETURN(ConvertedModel converted, ReadConvertedModel(request.model, device));
  LoadedModel loaded;
  loaded.model = std::move(converted.model);
  loaded.parameters = std::move(converted.parameters);
  loaded.options.form = converted.form.attention;
  loaded.options.mode = converted.form.mode;
  if (request.mode != "served") {
    TANDEM_ASSIGN_OR_RETURN(loaded.options.mode, ComponentModeFromName(request.mode));
  }
  return loaded;
}

Status CheckIds(const GenerateRequest& request, int64_t vocab) {
  for (size_t i = 0; i < request.prompt.size(); ++i) {
    if (request.prompt[i] < vocab) continue;
    return InvalidArgument("prompt[" + std::to_string(i) + "] is " +
                           std::to_string(request.prompt[i]) + "; the model has " +
                           std::to_string(vocab) + " tokens: is this its tokenizer?");
  }
  return Status::Ok();
}

at::Tensor IdsTensor(const std::vector<int64_t>& ids) {
  const at::Tensor tensor = at::empty({1, static_cast<int64_t>(ids.size())}, at::kLong);
  std::copy(ids.begin(), ids.end(), tensor.mutable_data_ptr<int64_t>());
  return tensor;
}

// The row as floats on the host; NaN is said, not sampled.
Result<at::Tensor> HostRow(const at::Tensor& logits_11V, int64_t position) {
  const at::Tensor row = logits_11V.reshape({-1}).to(at::kCPU, at::kFloat).contiguous();
  if (!at::isnan(row).any().item<bool>()) return row;
  return Internal("the logits after " + std::to_string(position) +
                  " tokens are not numbers; the model's weights are broken");
}

RankExit Write(const GenerateRequest& request, const LoadedModel& loaded) {
  const RecurrentModel model(*loaded.model, loaded.parameters.get(), loaded.options);
  RecurrentState state = model.Start();
  int64_t begin = Clock::System().MonotonicNs();
  at::Tensor logits = model.Advance(IdsTensor(request.prompt), false, &state);
  Tell({{"event", "prompt"},
        {"tokens", request.prompt.size()},
        {"seconds", SecondsSince(begin)},
        {"mode", ComponentModeName(loaded.options.mode)},
        {"state_bytes", state.bytes()}});
  begin = Clock::System().MonotonicNs();
  int64_t written = 0;
  std::string reason = "length";
  while (written < request.max_tokens) {
    const auto row = HostRow(logits, state.position);
    if (!row.ok()) return Fail(RankExit::kBug, row.status().message());
    const int64_t id =
        SampleToken(row->const_data_ptr<float>(), row->numel(), request.sampling, written);
    if (std::find(request.stop.begin(), request.stop.end(), id) != request.stop.end()) {
      reason = "stop";
      break;
    }
    Tell({{"token", id}});
    ++written;
    if (written < request.max_tokens) logits = model.Advance(IdsTensor({id}), false, &state);
  }
  const double seconds = SecondsSince(begin);
  Tell({{"event", "done"},
        {"reason", reason},
        {"tokens", written},
        {"seconds", seconds},
        {"tokens_per_second", seconds > 0 ? static_cast<double>(written) / seconds : 0.0},
        {"state_bytes", state.bytes()},
        {"peak_memory_bytes", static_cast<int64_t>(PeakMemory().OfProcess())},
        {"peak_device_bytes", PeakDeviceBytes(loaded.model->device())}});
  return RankExit::kDone;
}

RankExit Run(const GenerateRequest& request) {
  if (request.threads > 0) at::set_num_threads(static_cast<int>(request.threads));
  const auto loaded = LoadModel(request);
  if (!loaded.ok()) return Fail(RankExit::kDataOrStorage, loaded.status().message());
  const Status checked = CheckIds(request, loaded->model->config().vocab_size);
  if (!checked.ok()) return Fail(RankExit::kDataOrStorage, checked.message());
  return Write(request, *loaded);
}

}  // namespace

Result<GenerateRequest> ParseGenerateRequest(const std::string& text) {
  const auto json = nlohmann::ordered_json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return InvalidArgument("the request is not a JSON object");
  std::vector<std::string> faults;
  JsonReader keys(json, "", faults);
  GenerateRequest request;
  constexpr int64_t kMaxId = int64_t{1} << 31, kMost = 1'000'000'000;
  int64_t version = 1;
  keys.Integer("version", version, {1, 1});
  keys.Text("model", request.model, {});
  keys.Text("mode", request.mode,
            {.allowed = {"served", "softmax", "hybrid", "window_only", "linear_only"}});
  keys.Integers("prompt", request.prompt, {0, kMaxId}, kMaxPromptTokens);
  keys.Integer("max_tokens", request.max_tokens, {0, kMost});
  keys.Real("temperature", request.sampling.temperature, {0, 100});
  keys.Real("top_p", request.sampling.top_p, {0, 1, true});
  keys.Unsigned("seed", request.sampling.seed);
  keys.Integers("stop", request.stop, {0, kMaxId});
  keys.Integer("threads", request.threads, {0, 1024});
  keys.Text("device", request.device, {.allowed = {"cpu", "cuda"}});
  keys.Text("dtype", request.dtype, {.allowed = {"float32", "bfloat16"}});
  keys.RefuseUnknown();
  if (faults.empty() && request.prompt.empty()) {
    faults.push_back("prompt has no tokens; it needs one or more");
  }
  if (faults.empty()) return request;
  std::string message = faults.front();
  for (size_t i = 1; i < faults.size(); ++i) message += "\n" + faults[i];
  return InvalidArgument(message);
}

RankExit GenerateFromFile(const std::string& path) {
  const auto text = ReadFile(path, kMaxRequestBytes);
  if (!text.ok()) return Fail(RankExit::kBadPlan, text.status().message());
  const auto request = ParseGenerateRequest(*text);
  if (!request.ok()) return Fail(RankExit::kBadPlan, request.status().message());
  return RunGuarded([](const RankMessage& message) { Fail(RankExit::kBug, message.text); },
                    [&] { return Run(*request); });
}

}  // namespace tandem
