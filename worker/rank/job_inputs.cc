#include "worker/rank/job_inputs.h"

#include <utility>

#include "base/digest.h"
#include "base/files.h"
#include "worker/export/weights.h"
#include "worker/model/device.h"
#include "worker/model/model_digest.h"
#include "worker/rank/failure.h"
#include "worker/rank/retained_choice.h"
#include "worker/rank/stage_factory.h"
#include "worker/train/lora_start.h"

namespace tandem {
namespace {

// The converted model takes the place of what training would have made.
void LoadConverted(const Plan& plan, const ComputeDevice& device, JobInputs& inputs) {
  const ModelConfig config = ValueOr(ReadModelConfig(plan.converted), RequireData);
  ExportedWeights weights = ValueOr(
      ReadExportWeights(plan.converted, config, ParameterOptionsOf(plan), device), RequireData);
  inputs.model = std::move(weights.model);
  inputs.parameters = std::move(weights.parameters);
  if (plan.model == plan.converted) return;
  inputs.reference = ValueOr(Llama::Load(plan.model, device), RequireData);
  if (inputs.reference->config().vocab_size == config.vocab_size) return;
  RequireData(InvalidArgument("model.base " + plan.model + " has vocab_size " +
                              std::to_string(inputs.reference->config().vocab_size) +
                              ", model.path " + std::to_string(config.vocab_size) +
                              "; give the model that was converted"));
}

std::unique_ptr<TrainingData> LoadTokens(const Plan& plan, const std::string& measured,
                                         int64_t vocab_size, bool is_first) {
  TokenExpectations expected;
  expected.vocab_size = vocab_size;
  expected.check_digests = is_first;
  const std::string tokenizer = JoinPath(measured, "tokenizer.json");
  if (is_first && PathExists(tokenizer)) {
    expected.tokenizer_sha256 = ValueOr(Sha256OfFile(tokenizer), RequireData);
  }
  RequireData(CheckTokenFolder(plan.data.tokens, expected));
  return ValueOr(TrainingData::Open(plan.data.tokens, plan.data.sequence_length), RequireData);
}

}  // namespace

JobInputs LoadInputs(Plan& plan, Collective& collective) {
  RequirePlan(CheckPlanForRanks(plan, collective.size()));
  const ComputeDevice device =
      ValueOr(OpenDevice(plan.device, plan.base_dtype, collective.rank()), RequirePlan);
  const bool is_first = collective.rank() == 0;
  const std::string& measured = plan.converted.empty() ? plan.model : plan.converted;
  JobInputs inputs;
  if (plan.converted.empty()) {
    inputs.model = ValueOr(Llama::Load(plan.model, device), RequireData);
  } else {
    LoadConverted(plan, device, inputs);
  }
  const ModelConfig& config = inputs.model->config();
  RequireData(CheckSequenceLength(config, plan.data.sequence_length));
  if (is_first) inputs.base_sha256 = ValueOr(DigestModel(measured), RequireData).sha256;
  inputs.base_sha256 = collective.Broadcast(inputs.base_sha256, 0);
  inputs.train = LoadTokens(plan, measured, config.vocab_size, is_first);
  inputs.retain_scores = ChooseRetained(*inputs.model, collective, plan);
  if (inputs.parameters != nullptr) return inputs;
  inputs.parameters = std::make_unique<Parameters>(config, ParameterOptionsOf(plan), device.device);
  DrawLoraStart(plan.seed, *inputs.parameters);
  return inputs;
}

}  // namespace tandem
