// The files that a spec names, looked at where they will be read.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "base/files.h"
#include "base/log.h"
#include "spec/fields.h"
#include "spec/recipes.h"
#include "spec/spec.h"

namespace tandem {
namespace {

using nlohmann::json;

// worker/model/model_config.cc reads these.
constexpr const char* kFamilies[] = {"llama", "mistral", "qwen2", "qwen3"};
constexpr int64_t kMaxConfigBytes = 1 << 20;
constexpr int64_t kMaxIndexBytes = 64 << 20;

class Inspector {
 public:
  explicit Inspector(std::vector<Violation>& out) : out_(out) {}

  void CheckModel(const v1::JobSpec& spec) {
    if (!CheckFolder("model.path", spec.model().path())) return;
    CheckConfig(spec.model().path(), spec);
    CheckWeights("model.path", spec.model().path());
    CheckTokenizer(spec.model().path());
    if (!spec.model().has_base() || !CheckFolder("model.base", spec.model().base())) return;
    CheckWeights("model.base", spec.model().base());
  }

  void CheckData(const std::string& field,
                 const google::protobuf::RepeatedPtrField<std::string>& files) {
    for (int i = 0; i < files.size(); ++i) {
      const std::string item = field + "[" + std::to_string(i) + "]";
      const std::string file = PathExists(files[i]) ? files[i] : WithoutRows(files[i]);
      struct stat found {};
      if (stat(file.c_str(), &found) != 0) {
        Report(item, file, "does not exist; must be a file on the worker's disk");
      } else if (S_ISDIR(found.st_mode) && PathExists(JoinPath(file, "state.json"))) {
        continue;  // a save_to_disk folder: prepare reads it
      } else if (!S_ISREG(found.st_mode)) {
        Report(item, file, "is not a file; list the text files themselves");
      } else if (found.st_size == 0) {
        Report(item, file, "is empty; delete it from the list");
      } else if (access(file.c_str(), R_OK) != 0) {
        Report(item, file, "cannot be read; grant the worker's user read access");
      }
    }
  }

 private:
  bool CheckFolder(const std::string& field, const std::string& folder) {
    if (!PathExists(folder)) {
      Report(field, folder,
             "does not exist; must be a Hugging Face directory on the worker's disk");
    } else if (!IsFolder(folder)) {
      Report(field, folder, "is not a directory; give the one that holds config.json");
    } else {
      return true;
    }
    return false;
  }

  void Report(const std::string& field, const std::string& path, const std::string& text) {
    out_.push_back({field, field + ": " + path + " " + text});
  }

  // A JSON object, or null after a report.
  json ReadObject(const std::string& path, int64_t max_bytes) {
    const auto text = ReadFile(path, max_bytes);
    if (!text.ok()) {
      Report("model.path", path, "cannot be read: " + text.status().message());
      return nullptr;
    }
    json object = json::parse(*text, nullptr, /*allow_exceptions=*/false);
    if (object.is_object()) return object;
    Report("model.path", path, "is not a JSON object; download the model again");
    return nullptr;
  }

  void CheckConfig(const std::string& folder, const v1::JobSpec& spec) {
    const std::string path = JoinPath(folder, "config.json");
    if (!PathExists(path))
      return Report("model.path", folder, "holds no config.json; must be a Hugging Face directory");
    const json config = ReadObject(path, kMaxConfigBytes);
    if (config.is_null()) return;
    const json type = config.value("model_type", json());
    if (type == "hybrid_linear" && spec.recipe() != "diagnose") {
      Report("model.path", path,
             "is an already converted model (hybrid_linear); give its base model, or measure it "
             "with recipe diagnose");
    } else if (type != "hybrid_linear" && !IsSupported(type)) {
      Report("model.path", path,
             "says model_type " + type.dump() + "; supported: " + SupportedWords());
    }
    CheckRetained(config, spec.attention().retain());
    CheckLengths(config, spec);
  }

  static bool IsSupported(const json& type) {
    return std::ranges::any_of(kFamilies, [&](const char* family) { return type == family; });
  }

  static std::string SupportedWords() {
    std::string words;
    for (const char* family : kFamilies) words += (words.empty() ? "" : ", ") + JsonQuote(family);
    return words;
  }

  void CheckLengths(const json& config, const v1::JobSpec& spec) {
    const json found = config.value("max_position_embeddings", json());
    if (!found.is_number_integer()) return;
    const auto positions = found.get<int64_t>();
    const auto& evaluate = spec.evaluate();
    CheckLength("data.sequence_length", spec.data().sequence_length(), positions);
    CheckLength("evaluate.passkey.length", evaluate.passkey().length(), positions);
    if (evaluate.needle().prompts() > 0)
      CheckLength("evaluate.needle.length", evaluate.needle().length(), positions);
    if (evaluate.recall().prompts() > 0)
      CheckLength("evaluate.recall.length", evaluate.recall().length(), positions);
    if (evaluate.key_value().prompts() > 0)
      CheckLength("evaluate.key_value.length", evaluate.key_value().length(), positions);
    for (int i = 0; i < evaluate.lengths_size(); ++i) {
      CheckLength("evaluate.lengths[" + std::to_string(i) + "]", evaluate.lengths(i), positions);
    }
  }

  void CheckRetained(const json& config, const v1::RetainSpec& retain) {
    const json heads = config.value("num_attention_heads", json());
    const json groups = config.value("num_key_value_heads", heads);
    const json layers = config.value("num_hidden_layers", json());
    if (!layers.is_number_integer() || !groups.is_number_integer()) return;
    const auto num_layers = layers.get<int64_t>(), num_groups = groups.get<int64_t>();
    const std::string sizes = std::to_string(num_layers) + " layers of " +
                              std::to_string(num_groups) + " groups, counted from 0";
    for (int i = 0; i < retain.kv_groups_size(); ++i) {
      const auto read = ReadRetainedText(retain.kv_groups(i));
      if (!read || (read->layer < num_layers && read->group.value_or(0) < num_groups)) continue;
      const std::string field = "attention.retain.kv_groups[" + std::to_string(i) + "]";
      out_.push_back(
          {field, field + " is " + JsonQuote(retain.kv_groups(i)) + "; the model has " + sizes});
    }
    if (retain.auto_() < num_layers * num_groups) return;
    out_.push_back(
        {"attention.retain.auto", "attention.retain.auto is " + std::to_string(retain.auto_()) +
                                      "; must leave something to convert: the model has " + sizes});
  }

  void CheckLength(const std::string& field, int64_t length, int64_t positions) {
    if (length <= positions) return;
    out_.push_back({field, field + " is " + std::to_string(length) + "; the model reads at most " +
                               std::to_string(positions) + " tokens (max_position_embeddings)"});
  }

  void CheckWeights(const std::string& field, const std::string& folder) {
    if (PathExists(JoinPath(folder, "model.safetensors"))) return;
    const std::string index = JoinPath(folder, "model.safetensors.index.json");
    if (PathExists(index)) return CheckShards(field, folder, index);
    const auto names = ListFolder(folder);
    bool pickled = false;
    for (const auto& name : names.ok() ? *names : std::vector<std::string>{}) {
      pickled =
          pickled || name.ends_with(".bin") || name.ends_with(".pt") || name.ends_with(".pth");
    }
    Report(
        field, folder,
        pickled
            ? "holds only pickled weights (.bin), which are never read; convert them to safetensors"
            : "holds neither model.safetensors nor model.safetensors.index.json");
  }

  void CheckShards(const std::string& field, const std::string& folder, const std::string& index) {
    const json object = ReadObject(index, kMaxIndexBytes);
    if (object.is_null()) return;
    const json map = object.value("weight_map", json());
    if (!map.is_object() || map.empty())
      return Report(field, index, "has no weight_map; download the model again");
    std::set<std::string> shards;
    for (const auto& shard : map) shards.insert(shard.is_string() ? shard.get<std::string>() : "");
    for (const auto& shard : shards) {
      if (shard.empty() || shard.find('/') != std::string::npos) {
        Report(field, index,
               "names a shard " + JsonQuote(shard) + "; must be file names in the same directory");
      } else if (!PathExists(JoinPath(folder, shard))) {
        Report(field, folder,
               "lacks " + shard + ", which its index names; download the model again");
      }
    }
  }

  void CheckTokenizer(const std::string& folder) {
    if (PathExists(JoinPath(folder, "tokenizer.json"))) return;
    const bool old = PathExists(JoinPath(folder, "tokenizer.model"));
    Report("model.path", folder,
           old ? "holds tokenizer.model alone; save it as tokenizer.json (transformers: a fast "
                 "tokenizer's "
                 "save_pretrained)"
               : "holds no tokenizer.json");
  }

  std::vector<Violation>& out_;
};

}  // namespace

std::vector<Violation> InspectPaths(const v1::JobSpec& spec) {
  std::vector<Violation> out;
  Inspector inspector(out);
  inspector.CheckModel(spec);
  inspector.CheckData("data.train", spec.data().train());
  inspector.CheckData("data.validation", spec.data().validation());
  inspector.CheckData("evaluate.suites", spec.evaluate().suites());
  return out;
}

}  // namespace tandem
