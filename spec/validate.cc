// Values: each field against its row of the table, then the rules between fields.
#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <set>

#include "base/log.h"
#include "spec/fields.h"
#include "spec/nearest.h"
#include "spec/spec.h"

namespace tandem {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr size_t kMaxTextBytes = 4096;
constexpr size_t kMaxNameBytes = 63;

std::string At(const std::string& path, int index) {
  return path + "[" + std::to_string(index) + "]";
}

class Violations {
 public:
  void Add(const std::string& field, const std::string& text) {
    list_.push_back({field, field.empty() ? text : field + " " + text});
    fields_.insert(field);
  }
  bool Has(const std::string& field) const { return fields_.contains(field); }
  // A rule between fields says nothing about fields that are wrong by themselves.
  void AddUnless(std::initializer_list<std::string> inputs, const std::string& field,
                 const std::string& text) {
    if (!Has(field) && std::ranges::none_of(inputs, [&](const auto& input) { return Has(input); }))
      Add(field, text);
  }
  std::vector<Violation> Take() { return std::move(list_); }

 private:
  std::vector<Violation> list_;
  std::set<std::string> fields_;
};

std::string Quoted(const std::string& text) {
  return text.size() <= 100 ? JsonQuote(text) : JsonQuote(text.substr(0, 100)) + "...";
}

// --- each field by itself ---

void CheckNumber(const Field& row, const std::string& path, double value, Violations& out) {
  const bool inside = value <= row.max && (row.min_open ? value > row.min : value >= row.min);
  if (!inside)
    out.Add(path,
            "is " + NumberText(value) + "; must be " + AllowedWords(row) + DefaultAdvice(row));
}

void CheckChoice(const Field& row, const std::string& path, const std::string& value,
                 Violations& out) {
  if (std::ranges::find(row.allowed, value) != row.allowed.end()) return;
  std::vector<std::string> names(row.allowed.begin(), row.allowed.end());
  if (std::ranges::find(row.later, value) != row.later.end()) {
    std::string list;
    for (const auto& name : names) list += (list.empty() ? "" : ", ") + name;
    out.Add(path,
            "is " + Quoted(value) + ", which is not available in this version; available: " + list);
    return;
  }
  const std::string near = NearestName(value, names);
  out.Add(path, "is " + Quoted(value) + "; must be " + AllowedWords(row) +
                    (near.empty() ? DefaultAdvice(row) : "; did you mean " + near + "?"));
}

void CheckPath(const std::string& path, const std::string& value, Violations& out) {
  if (value.find("://") != std::string::npos) {
    out.Add(path, "is " + Quoted(value) + "; must be a path on the worker's disk: fetch it first");
  } else if (value.starts_with('~')) {
    out.Add(path, "is " + Quoted(value) + "; ~ is not expanded: write the whole path");
  } else if (!value.starts_with('/')) {
    out.Add(path, "is " + Quoted(value) +
                      "; must be an absolute path (only in a job file may it be relative)");
  }
}

void CheckName(const std::string& path, const std::string& value, Violations& out) {
  const bool letters =
      value.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string::npos;
  const bool ends = value.front() >= 'a' && value.front() <= 'z' && value.back() != '-';
  if (letters && ends && value.size() <= kMaxNameBytes) return;
  out.Add(
      path,
      "is " + Quoted(value) +
          "; must be 1 to 63 lower-case letters, digits and '-', a letter first and no '-' last");
}

void CheckText(const Field& row, const std::string& path, const std::string& value,
               Violations& out) {
  const bool control = std::ranges::any_of(
      value, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; });
  if (value.empty()) {
    out.Add(path,
            row.required ? "is empty; give it a value" : "is empty; give it a value or delete it");
  } else if (value.size() > kMaxTextBytes) {
    out.Add(path, "has " + std::to_string(value.size()) + " bytes; at most " +
                      std::to_string(kMaxTextBytes) + " are allowed");
  } else if (control) {
    out.Add(path, "is " + Quoted(value) + "; control characters are not allowed");
  } else if (!row.allowed.empty()) {
    CheckChoice(row, path, value, out);
  } else if (row.is_path) {
    CheckPath(path, value, out);
  } else {
    CheckName(path, value, out);
  }
}

// One value of a field, or one item of a list (index >= 0).
void CheckValue(const Field& row, const std::string& path, const FieldDescriptor& field,
                const Message& message, int index, Violations& out) {
  const auto* reflection = message.GetReflection();
  const bool item = index >= 0;
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      return CheckText(row, path,
                       item ? reflection->GetRepeatedString(message, &field, index)
                            : reflection->GetString(message, &field),
                       out);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return CheckNumber(row, path,
                         item ? reflection->GetRepeatedDouble(message, &field, index)
                              : reflection->GetDouble(message, &field),
                         out);
    case FieldDescriptor::CPPTYPE_INT64:
      return CheckNumber(
          row, path,
          static_cast<double>(item ? reflection->GetRepeatedInt64(message, &field, index)
                                   : reflection->GetInt64(message, &field)),
          out);
    case FieldDescriptor::CPPTYPE_INT32:
      return CheckNumber(row, path, reflection->GetInt32(message, &field), out);
    case FieldDescriptor::CPPTYPE_UINT64:
      return CheckNumber(row, path, static_cast<double>(reflection->GetUInt64(message, &field)),
                         out);
    default:
      return;
  }
}

void CheckFields(const std::string& path, const Message& message, Violations& out);

void CheckField(const std::string& path, const FieldDescriptor& field, const Message& message,
                Violations& out) {
  const Field& row = *FindField(path);
  const auto* reflection = message.GetReflection();
  const bool is_group = field.type() == FieldDescriptor::TYPE_MESSAGE;
  if (!field.is_repeated()) {
    if (!reflection->HasField(message, &field)) return;
    if (is_group) return CheckFields(path, reflection->GetMessage(message, &field), out);
    return CheckValue(row, path, field, message, -1, out);
  }
  const int size = reflection->FieldSize(message, &field);
  if (static_cast<size_t>(size) > row.max_items) {
    return out.Add(path, "has " + std::to_string(size) + " items; at most " +
                             std::to_string(row.max_items) + " are allowed");
  }
  for (int i = 0; i < size; ++i) {
    if (is_group) CheckFields(At(path, i), reflection->GetRepeatedMessage(message, &field, i), out);
    if (!is_group) CheckValue(row, At(path, i), field, message, i, out);
  }
}

void CheckFields(const std::string& path, const Message& message, Violations& out) {
  const auto* type = message.GetDescriptor();
  for (int i = 0; i < type->field_count(); ++i) {
    const std::string& name = type->field(i)->name();
    CheckField(path.empty() ? name : path + "." + name, *type->field(i), message, out);
  }
}

// --- rules between fields ---

// What Resolve gives back: every field set, and stages in the recipe's shape.
bool IsResolved(const v1::JobSpec& spec) {
  const bool shape = spec.stages_size() == 2 && spec.stages(0).has_attention_transfer() &&
                     spec.stages(1).has_finetune();
  return shape && CanonicalJson(Resolve(spec)) == CanonicalJson(spec);
}

void CheckPresence(const v1::JobSpec& spec, Violations& out) {
  if (!spec.model().has_path())
    out.Add("model.path", "is missing; give the base model's Hugging Face directory");
  if (spec.data().train_size() == 0)
    out.Add("data.train", "is missing; give at least one text file");
  if (!spec.has_recipe() && spec.stages_size() == 0) {
    out.Add("recipe", "is missing; give recipe: lolcats or ssd, or write out stages");
  }
  if (spec.has_recipe() && spec.stages_size() > 0 && !IsResolved(spec)) {
    out.Add("stages", "stands beside recipe; keep one of the two");
  }
  for (int i = 0; i < spec.stages_size(); ++i) {
    if (spec.stages(i).kind_case() != v1::StageSpec::KIND_NOT_SET) continue;
    out.Add(At("stages", i), "names no stage; write `attention_transfer: {}` or `finetune: {}`");
  }
  if (spec.stages_size() == 0) return;
  if (spec.has_attention_transfer()) {
    out.Add("attention_transfer",
            "stands beside stages; move it into an item of stages or delete it");
  }
  if (spec.has_finetune())
    out.Add("finetune", "stands beside stages; move it into an item of stages or delete it");
}

void CheckDuplicates(const v1::DataSpec& data, Violations& out) {
  std::map<std::string, std::string> seen;
  const auto check = [&](const std::string& field, const auto& files) {
    for (int i = 0; i < files.size(); ++i) {
      const auto [first, is_new] = seen.emplace(files[i], At(field, i));
      if (is_new) continue;
      out.AddUnless(
          {first->second}, At(field, i),
          "is " + Quoted(files[i]) + ", the same file as " + first->second + "; keep one");
    }
  };
  check("data.train", data.train());
  check("data.validation", data.validation());
}

void CheckSuffixes(const std::string& field,
                   const google::protobuf::RepeatedPtrField<std::string>& files, Violations& out) {
  for (int i = 0; i < files.size(); ++i) {
    std::string name = files[i];
    for (const char* packed : {".gz", ".xz", ".zst"}) {
      if (name.ends_with(packed)) name.resize(name.size() - std::string(packed).size());
    }
    if (name.ends_with(".txt") || name.ends_with(".jsonl")) continue;
    out.AddUnless({}, At(field, i),
                  "is " + Quoted(files[i]) +
                      "; must end in .txt or .jsonl, or one of these with .gz, .xz or .zst");
  }
}

void CheckAttention(const v1::JobSpec& spec, Violations& out) {
  const int64_t length = spec.data().sequence_length();
  const auto& window = spec.attention().window();
  const std::string limit = "data.sequence_length, which is " + std::to_string(length);
  if (window.size() >= length) {
    out.AddUnless({"data.sequence_length"}, "attention.window.size",
                  "is " + std::to_string(window.size()) + "; must be below " + limit +
                      ": with the whole sequence in the window, linear attention is never used");
  } else if (window.sinks() >= length - window.size()) {
    out.AddUnless({"data.sequence_length", "attention.window.size"}, "attention.window.sinks",
                  "is " + std::to_string(window.sinks()) +
                      "; with attention.window.size it must stay below " + limit);
  }
  const auto& mixing = spec.attention().mixing();
  if (mixing.factor() == "sigmoid" && mixing.initial() >= 1) {
    out.AddUnless({}, "attention.mixing.initial",
                  "is " + NumberText(mixing.initial()) +
                      "; must be below 1 with attention.mixing.factor sigmoid");
  }
}

template <typename Stage>
void CheckSteps(const std::string& path, const Stage& stage, int64_t ranks, Violations& out) {
  if (stage.warmup_steps() > stage.steps()) {
    out.AddUnless({path + ".steps"}, path + ".warmup_steps",
                  "is " + std::to_string(stage.warmup_steps()) + "; must be at most " + path +
                      ".steps, which is " + std::to_string(stage.steps()));
  }
  if (ranks >= 1 && stage.batch_size() % ranks != 0) {
    out.AddUnless({"parallelism.data"}, path + ".batch_size",
                  "is " + std::to_string(stage.batch_size()) +
                      "; must be a multiple of parallelism.data, which is " +
                      std::to_string(ranks));
  }
}

void CheckFinetune(const std::string& path, const v1::FinetuneSpec& stage, Violations& out) {
  if (stage.mode() == "linear_only" && stage.ssd().schedule_size() > 0) {
    out.AddUnless({}, path + ".mode",
                  "is \"linear_only\" beside a dropout schedule of the window; linear_only has no "
                  "window: choose hybrid");
  }
  std::set<std::string> seen;
  for (int i = 0; i < stage.lora().targets_size(); ++i) {
    const auto& target = stage.lora().targets(i);
    const std::string item = At(path + ".lora.targets", i);
    if (!seen.insert(target).second)
      out.AddUnless({}, item, "is " + Quoted(target) + " a second time; keep one");
  }
}

void CheckStages(const v1::JobSpec& resolved, bool from_recipe, Violations& out) {
  for (int i = 0; i < resolved.stages_size(); ++i) {
    const auto& stage = resolved.stages(i);
    const std::string prefix = from_recipe ? "" : At("stages", i) + ".";
    const int64_t ranks = resolved.parallelism().data();
    if (stage.has_attention_transfer()) {
      CheckSteps(prefix + "attention_transfer", stage.attention_transfer(), ranks, out);
    } else if (stage.has_finetune()) {
      CheckSteps(prefix + "finetune", stage.finetune(), ranks, out);
      CheckFinetune(prefix + "finetune", stage.finetune(), out);
    }
  }
}

void CheckEvaluate(const v1::JobSpec& spec, Violations& out) {
  const auto& evaluate = spec.evaluate();
  const auto& passkey = evaluate.passkey();
  if (evaluate.sinks() >= spec.data().sequence_length()) {
    out.AddUnless({"data.sequence_length"}, "evaluate.sinks",
                  "is " + std::to_string(evaluate.sinks()) +
                      "; must be below data.sequence_length, which is " +
                      std::to_string(spec.data().sequence_length()));
  }
  if (evaluate.sequences() < spec.parallelism().data()) {
    out.AddUnless({"parallelism.data"}, "evaluate.sequences",
                  "is " + std::to_string(evaluate.sequences()) +
                      "; must be at least parallelism.data, which is " +
                      std::to_string(spec.parallelism().data()));
  }
  if (passkey.prompts() == 0) return;
  if (passkey.length() < kShortestPasskey) {
    out.AddUnless({"data.sequence_length", "evaluate.passkey.prompts"}, "evaluate.passkey.length",
                  "is " + std::to_string(passkey.length()) + "; must be at least " +
                      std::to_string(kShortestPasskey) + "; or set evaluate.passkey.prompts to 0");
    return;
  }
  for (int i = 0; i < passkey.distances_size(); ++i) {
    if (passkey.distances(i) <= passkey.length() - kPasskeyMargin) continue;
    out.AddUnless(
        {"data.sequence_length", "evaluate.passkey.length"}, At("evaluate.passkey.distances", i),
        "is " + std::to_string(passkey.distances(i)) + "; must be at most " +
            std::to_string(passkey.length() - kPasskeyMargin) + ", the prompt's length less " +
            std::to_string(kPasskeyMargin) + " for the key and the question");
  }
}

}  // namespace

std::vector<Violation> Validate(const v1::JobSpec& spec) {
  Violations out;
  CheckFields("", spec, out);
  CheckPresence(spec, out);
  CheckDuplicates(spec.data(), out);
  CheckSuffixes("data.train", spec.data().train(), out);
  CheckSuffixes("data.validation", spec.data().validation(), out);
  // Defaults take part in the rules: a window of 2000 is too long for the default sequence.
  const v1::JobSpec resolved = Resolve(spec);
  CheckAttention(resolved, out);
  CheckStages(resolved, spec.stages_size() == 0, out);
  CheckEvaluate(resolved, out);
  return out.Take();
}

}  // namespace tandem
