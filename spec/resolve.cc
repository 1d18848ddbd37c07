// Defaults and recipes: a spec as the user wrote it -> what will run.
#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <algorithm>
#include <charconv>

#include "base/status.h"
#include "spec/fields.h"
#include "spec/recipes.h"
#include "spec/spec.h"

namespace tandem {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr int64_t kDefaultTokens = 20'000'000;  // per training stage (method: LoLCATs' budget)
constexpr int64_t kDefaultBatch = 8;
constexpr int64_t kDefaultWarmup = 30;
constexpr int64_t kDefaultPrompts = 32;
// Recipe ssd with retained groups, see FillRetained.
constexpr double kRetainedFactor = 2;
constexpr double kRetainedSchedule[] = {0.9, 0.5, 0};

std::string DefaultFor(const Field& field, const std::string& recipe) {
  for (const auto& other : field.recipe_defaults) {
    if (other.recipe == recipe) return std::string(other.value);
  }
  return std::string(field.default_value);
}

void SetScalar(const std::string& text, const FieldDescriptor& field, Message& message) {
  const auto* reflection = message.GetReflection();
  const bool repeated = field.is_repeated();
  double number = 0;
  std::from_chars(text.data(), text.data() + text.size(), number);
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      return repeated ? reflection->AddString(&message, &field, text)
                      : reflection->SetString(&message, &field, text);
    case FieldDescriptor::CPPTYPE_BOOL:
      return reflection->SetBool(&message, &field, text == "true");
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return repeated ? reflection->AddDouble(&message, &field, number)
                      : reflection->SetDouble(&message, &field, number);
    case FieldDescriptor::CPPTYPE_INT32:
      return reflection->SetInt32(&message, &field, static_cast<int32_t>(number));
    case FieldDescriptor::CPPTYPE_UINT64:
      return reflection->SetUInt64(&message, &field, static_cast<uint64_t>(number));
    default: {
      const auto whole = static_cast<int64_t>(number);
      return repeated ? reflection->AddInt64(&message, &field, whole)
                      : reflection->SetInt64(&message, &field, whole);
    }
  }
}

// The table's own notation: `value`, or `[a, b]` for lists.
void SetDefault(std::string text, const FieldDescriptor& field, Message& message) {
  if (!field.is_repeated()) return SetScalar(text, field, message);
  TANDEM_CHECK(text.size() > 2 && text.front() == '[' && text.back() == ']');
  text = text.substr(1, text.size() - 2) + ",";
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find(',', begin);
    const size_t first = text.find_first_not_of(' ', begin);
    SetScalar(text.substr(first, end - first), field, message);
    begin = end + 1;
  }
}

bool IsSet(const FieldDescriptor& field, const Message& message) {
  const auto* reflection = message.GetReflection();
  return field.is_repeated() ? reflection->FieldSize(message, &field) > 0
                             : reflection->HasField(message, &field);
}

// Sets every unset field below `message` that has a literal default; `path` is the message's own,
// from the root.
void FillLiterals(const std::string& path, const std::string& recipe, Message& message) {
  const auto* type = message.GetDescriptor();
  for (int i = 0; i < type->field_count(); ++i) {
    const auto& field = *type->field(i);
    const std::string child = path.empty() ? field.name() : path + "." + field.name();
    if (child == "stages" || child == "attention_transfer" || child == "finetune") continue;
    if (field.type() == FieldDescriptor::TYPE_MESSAGE) {
      FillLiterals(child, recipe, *message.GetReflection()->MutableMessage(&message, &field));
    } else if (!IsSet(field, message)) {
      const std::string text = DefaultFor(*FindField(child), recipe);
      if (!text.empty()) SetDefault(text, field, message);
    }
  }
}

// What a feature map is by its kind (method.md §2).
void FillFeatureMap(v1::FeatureMapSpec& map) {
  const bool is_relu = map.kind() == "relu";
  if (!map.has_two_sided()) map.set_two_sided(!is_relu && map.kind() != "elu");
  if (!map.has_bias()) map.set_bias(is_relu);
}

// Validation resolves specs that are still wrong, to judge their fields against each other: no
// overflow, no division by 0.
int64_t Within(int64_t value) {
  return std::clamp<int64_t>(value, 1, 1 << 20);
}

// What both kinds of training stage derive from the rest of the job.
template <typename Stage>
void FillSteps(const v1::JobSpec& spec, Stage& stage) {
  const int64_t ranks = Within(spec.parallelism().data());
  if (!stage.has_batch_size()) stage.set_batch_size((kDefaultBatch + ranks - 1) / ranks * ranks);
  if (!stage.has_steps()) {
    const int64_t tokens_per_step =
        Within(stage.batch_size()) * Within(spec.data().sequence_length());
    stage.set_steps(std::max<int64_t>(1, kDefaultTokens / tokens_per_step));
  }
  if (!stage.has_warmup_steps()) stage.set_warmup_steps(std::min(kDefaultWarmup, stage.steps()));
}

bool RetainsWithSsd(const v1::JobSpec& spec) {
  const auto& retain = spec.attention().retain();
  return spec.recipe() == "ssd" && (retain.auto_() > 0 || retain.kv_groups_size() > 0);
}

// A retained head looks up what a local head below it has copied. That head is converted: at the
// usual factor of 0.1 the mass of the linear branch drowns its window, and recall is lost though
// the retained head is whole (README.md, All recipes). Affine mixing has no factor above 1.
void FillRetained(v1::JobSpec& spec) {
  auto& mixing = *spec.mutable_attention()->mutable_mixing();
  if (!RetainsWithSsd(spec) || mixing.has_factor() || mixing.has_initial() || mixing.affine())
    return;
  mixing.set_factor("exp");
  mixing.set_initial(kRetainedFactor);
}

// The last third trains what is served, window and all.
void FillRetained(const v1::JobSpec& spec, v1::FinetuneSpec& finetune) {
  auto& schedule = *finetune.mutable_ssd()->mutable_schedule();
  if (!RetainsWithSsd(spec) || !schedule.empty()) return;
  schedule.Add(std::begin(kRetainedSchedule), std::end(kRetainedSchedule));
}

void FillStage(const v1::JobSpec& spec, v1::StageSpec& stage) {
  if (stage.has_attention_transfer()) {
    FillLiterals("attention_transfer", spec.recipe(), *stage.mutable_attention_transfer());
    FillSteps(spec, *stage.mutable_attention_transfer());
  } else if (stage.has_finetune()) {
    FillRetained(spec, *stage.mutable_finetune());
    FillLiterals("finetune", spec.recipe(), *stage.mutable_finetune());
    auto& finetune = *stage.mutable_finetune();
    FillSteps(spec, finetune);
    if (!finetune.has_train_factor()) finetune.set_train_factor(finetune.train_maps());
  }
}

// Passkey and needle prompts alike.
template <typename Prompts>
void FillDistances(int64_t window_size, Prompts& prompts) {
  if (prompts.prompts() == 0 || prompts.distances_size() > 0) return;
  int64_t last = 0;
  const int64_t length = Within(prompts.length());
  for (const int64_t distance : {int64_t{16}, 2 * Within(window_size), length - kShortestPasskey}) {
    if (distance <= last || distance > length - kPasskeyMargin) continue;
    prompts.add_distances(distance);
    last = distance;
  }
}

void FillPrompts(v1::JobSpec& spec) {
  auto& evaluate = *spec.mutable_evaluate();
  const int64_t length = spec.data().sequence_length();
  const auto fill_length = [length](auto& prompts) {
    if (prompts.length() == 0) prompts.set_length(length);
  };
  fill_length(*evaluate.mutable_passkey());
  fill_length(*evaluate.mutable_needle());
  fill_length(*evaluate.mutable_recall());
  fill_length(*evaluate.mutable_key_value());
  auto& passkey = *evaluate.mutable_passkey();
  if (!passkey.has_prompts())
    passkey.set_prompts(passkey.length() >= kShortestPasskey ? kDefaultPrompts : 0);
  FillDistances(spec.attention().window().size(), passkey);
  FillDistances(spec.attention().window().size(), *evaluate.mutable_needle());
}

}  // namespace

v1::JobSpec Resolve(const v1::JobSpec& spec) {
  v1::JobSpec resolved = spec;
  if (resolved.stages_size() == 0) {
    const RecipeShape shape = ShapeOf(spec.recipe());
    if (shape.has_transfer)
      *resolved.add_stages()->mutable_attention_transfer() = spec.attention_transfer();
    if (shape.has_finetune) *resolved.add_stages()->mutable_finetune() = spec.finetune();
  }
  resolved.clear_attention_transfer();
  resolved.clear_finetune();
  FillRetained(resolved);
  FillLiterals("", resolved.recipe(), resolved);
  FillFeatureMap(*resolved.mutable_attention()->mutable_feature_map());
  if (!resolved.has_name())
    resolved.set_name(resolved.recipe().empty() ? "conversion" : resolved.recipe());
  for (auto& stage : *resolved.mutable_stages()) FillStage(resolved, stage);
  FillPrompts(resolved);
  return resolved;
}

}  // namespace tandem
