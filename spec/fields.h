// The table of fields: what a user may write in a job, one row per field of
// proto/tandem/v1/spec.proto.
//
// The single source for validation, defaults, `tandem explain` and the hints in errors; a test
// walks the proto descriptor against it, both ways. Immutable; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

enum class FieldType { kGroup, kStages, kText, kInteger, kReal, kFlag, kTexts, kIntegers, kReals };

// A default that a recipe has instead of the field's own.
struct RecipeDefault {
  std::string_view recipe;
  std::string_view value;
};

// Passkey prompts: the shortest that is measured, and the room that the key and the question take.
inline constexpr int64_t kShortestPasskey = 128;
inline constexpr int64_t kPasskeyMargin = 64;

struct Field {
  std::string_view
      path;  // from the root; "finetune.steps" also stands for "stages[].finetune.steps"
  FieldType type = FieldType::kText;
  // Numbers, and each number of a list: the closed range; `min_open` excludes min.
  double min = 0;
  double max = 0;
  bool min_open = false;
  // Texts: allowed values (empty: any), and values that Tandem knows by name but this version does
  // not have.
  std::vector<std::string_view> allowed = {};
  std::vector<std::string_view> later = {};
  size_t max_items = 0;  // lists
  bool is_path = false;  // a path on the worker: absolute once parsed
  bool required = false;
  // Known by name, not available in this version: only its default is taken.
  bool not_built = false;
  // The default as YAML text, or empty; then `default_words` says how it comes about
  // (spec/resolve.cc).
  std::string_view default_value = {};
  std::string_view default_words = {};
  std::vector<RecipeDefault> recipe_defaults = {};
  std::string_view unit = {};
  std::string_view words = {};  // what it does, for people
};

// All rows; parents before children, in the order of the proto.
const std::vector<Field>& Fields();

// The row for a concrete path: list indices are dropped, "stages[1].finetune.steps" gives
// "finetune.steps". Null: none.
const Field* FindField(std::string_view path);

// Fields that the design names and this version does not have ("parallelism.tensor").
bool IsLaterField(std::string_view path);

// "stages[1].finetune.steps" -> "finetune.steps"; "data.train[0]" -> "data.train".
std::string TablePath(std::string_view path);

// "integer", "list of numbers", ...
std::string TypeWords(const Field& field);
// "in [1, 10000000]", "above 0, at most 1", "one of weights, hybrid_outputs"; empty: anything of
// its type.
std::string AllowedWords(const Field& field);
// "0.01", "weights (lolcats: hybrid_outputs)", "20M tokens' worth"; empty: none.
std::string DefaultWords(const Field& field);
// "; delete it to take the default, 64", or empty where there is none.
std::string DefaultAdvice(const Field& field);

// "a.jsonl[0:200]" -> "a.jsonl": the file of an item of data.train, without the rows that it names.
std::string WithoutRows(const std::string& path);

// Shortest text that reads back to the same number.
std::string NumberText(double number);

}  // namespace tandem
