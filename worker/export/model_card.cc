// README.md of an export: the first thing its user reads.
#include <cstdio>
#include <nlohmann/json.hpp>

#include "worker/export/directory_files.h"

namespace tandem {
namespace {

using nlohmann::json;

std::string Fixed(const json& value, const char* format, double scale = 1) {
  if (!value.is_number()) return "–";
  char text[48];
  std::snprintf(text, sizeof text, format, value.get<double>() * scale);
  return text;
}

const json& At(const json& object, const char* key) {
  static const json none;
  return object.is_object() && object.contains(key) ? object[key] : none;
}

// a/b/c -> c: of folders, and of jobs, whose full names are no headings.
std::string LastName(const std::string& path) {
  return path.substr(path.find_last_of('/') + 1);
}

const char* ModeInWords(const std::string& mode) {
  if (mode == "softmax") return "the base, full softmax attention";
  if (mode == "hybrid") return "linear attention and window together";
  if (mode == "window_only") return "the sliding window alone";
  if (mode == "linear_only") return "the linear branch alone";
  if (mode == "sinks_only") return "the first tokens alone";
  return "no attention";
}

std::string ComponentTable(const json& report, const std::string& served_mode) {
  std::string table =
      "| Mode | What runs | Loss | Perplexity | Recovered |\n|---|---|---:|---:|---:|\n";
  for (const char* mode :
       {"softmax", "hybrid", "window_only", "linear_only", "sinks_only", "none"}) {
    const json& row = At(At(report, "components"), mode);
    const std::string used = mode == served_mode ? ": this model, as it is used" : "";
    table += std::string("| `") + mode + "` | " + ModeInWords(mode) + used + " | " +
             Fixed(At(row, "loss"), "%.4f") + " | " + Fixed(At(row, "perplexity"), "%.2f") + " | " +
             Fixed(At(row, "recovered"), "%.0f %%", 100) + " |\n";
  }
  return table;
}

std::string VerdictSection(const json& report, const std::string& served_mode) {
  if (!report.is_object()) return "This export was made without an evaluation.\n\n";
  const std::string verdict =
      At(report, "verdict").is_string() ? report["verdict"].get<std::string>() : "unknown";
  const std::string reason =
      At(report, "verdict_reason").is_string() ? report["verdict_reason"].get<std::string>() : "";
  return "## Do both components pull?\n\nVerdict: **" + verdict + "**. " + reason + ".\n\n" +
         ComponentTable(report, served_mode) + "\nLoss in nats per token on held-out text (" +
         Fixed(At(report, "sequences"), "%.0f") + " sequences of " +
         Fixed(At(report, "sequence_length"), "%.0f") +
         " tokens). *Recovered* is the share of attention's worth: 0 % is what the first tokens "
         "alone "
         "give, 100 % the base's softmax. `linear_only` reads all causal keys.\n\n";
}

// One line per question that the report answers.
std::string FindingsSection(const json& report) {
  std::string lines;
  const auto add = [&lines](const char* name, const json& object) {
    if (!At(object, "words").is_string()) return;
    lines += std::string("- ") + name + ": " + At(object, "words").get<std::string>() + "\n";
  };
  add("better than the window alone", At(report, "beats_window"));
  add("recall beyond the window's reach", At(report, "recall"));
  add("training ended early", At(report, "early_stop"));
  return lines.empty() ? "" : lines + "\n";
}

std::string Attention(const Plan& plan) {
  const AttentionPlan& a = plan.attention;
  std::string text = "- mode: `" + plan.served_mode + "`\n- window: " + a.window_kind + ", " +
                     std::to_string(a.window_size) + " tokens";
  if (a.window_sinks > 0) text += ", and the first " + std::to_string(a.window_sinks);
  if (a.window_align_end) text += ", in blocks that end with the text";
  text += "\n- linear branch: " +
          std::string(a.linear_span == "all" ? "all keys" : "the keys outside the window") +
          ", feature map `" + a.feature_map_kind + "` of width " + std::to_string(a.feature_dim) +
          (a.feature_map_two_sided ? ", two-sided" : "") + (a.feature_map_bias ? ", biased" : "") +
          (a.tie_kv_heads ? ", one key map per key/value head" : "") + "\n";
  if (a.cache_size > 0) {
    text += "- sparse cache: " + std::to_string(a.cache_size) + " keys per query head\n";
  }
  if (!a.retained.empty()) {
    text += "- key/value heads that stay softmax (layer.group):";
    for (const RetainedGroup& kept : a.retained) {
      text += " " + std::to_string(kept.layer) + "." + std::to_string(kept.group);
    }
    text += "\n";
  }
  return "## Attention\n\n" + text + "\n";
}

std::string PartsSection(const Plan& plan) {
  std::string text;
  if (plan.export_adapter) {
    text +=
        "`adapter/` holds the LoRA weights alone, for PEFT: "
        "`PeftModel.from_pretrained(base, \"DIR/adapter\")`.\n";
  }
  if (plan.export_delta) {
    text +=
        "`delta/linear_attention.safetensors` holds the feature maps and window factors alone.\n";
  }
  return text.empty() ? "" : "## Parts\n\n" + text + "\n";
}

std::string LoadingSection() {
  return "## Loading it\n\n```python\nfrom transformers import AutoModelForCausalLM, "
         "AutoTokenizer\n\n"
         "model = AutoModelForCausalLM.from_pretrained(\"DIR\", trust_remote_code=True)\n"
         "tokenizer = AutoTokenizer.from_pretrained(\"DIR\", trust_remote_code=True)\n"
         "ids = tokenizer(\"Once upon a time\", return_tensors=\"pt\").input_ids\n"
         "print(tokenizer.decode(model.generate(ids, max_new_tokens=40)[0]))\n```\n\n"
         "`trust_remote_code` runs the Python files of this directory, which need torch and "
         "transformers alone.\n\n";
}

}  // namespace

Result<std::string> ModelCard(const Plan& plan, const std::string& report_json) {
  const json report = json::parse(report_json, nullptr, /*allow_exceptions=*/false);
  const std::string base = LastName(plan.model), name = LastName(plan.job_name);
  const std::string memory =
      plan.attention.retained.empty()
          ? "Decoding needs constant memory, whatever the length of the text."
          : "Decoding needs constant memory, but for the key/value heads that stay softmax.";
  return "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n"
         "- linear-attention\n- hybrid-attention\n---\n# " +
         (name.empty() ? base : name) + "\n\n`" + base +
         "`, converted from softmax attention to linear attention" +
         (plan.served_mode == "linear_only"
              ? ""
              : " with a " + plan.attention.window_kind + " softmax window of " +
                    std::to_string(plan.attention.window_size) + " tokens") +
         (plan.recipe.empty() ? "" : " by the recipe `" + plan.recipe + "`") + ". " + memory +
         " LoRA weights are merged; weights are " + plan.export_dtype + ".\n\n" +
         VerdictSection(report, plan.served_mode) + FindingsSection(report) + Attention(plan) +
         LoadingSection() + PartsSection(plan) +
         "## Where it comes from\n\n`manifest.json` names the base's files, the text, the settings "
         "and every file of this directory by SHA-256. The base model's licence applies.\n";
}

}  // namespace tandem
