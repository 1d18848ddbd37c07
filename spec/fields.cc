#include "spec/fields.h"

#include <algorithm>
#include <charconv>

namespace tandem {
namespace {

using enum FieldType;

constexpr double kMaxExactInteger = 9007199254740991.0;  // 2^53 - 1: survives JSON readers
constexpr double kMaxTokens = 1048576;

std::vector<Field> JobFields() {
  return {
      {.path = "name",
       .default_words = "the recipe's name",
       .words = "Short name of the job: lower-case letters, digits and '-'. A taken name gets a "
                "number behind it."},
      {.path = "project",
       .default_value = "default",
       .words = "Groups jobs. Same letters as name."},
      {.path = "priority",
       .type = kInteger,
       .min = -1000,
       .max = 1000,
       .default_value = "0",
       .words = "Of waiting jobs, the one with the highest priority starts first; equals in order "
                "of submission."},
      {.path = "seed",
       .type = kInteger,
       .min = 0,
       .max = kMaxExactInteger,
       .default_value = "0",
       .words = "All randomness of the job comes from it: same seed, same result."},
      {.path = "model", .type = kGroup, .words = "The pretrained Transformer to convert."},
      {.path = "model.path",
       .is_path = true,
       .required = true,
       .words = "Its Hugging Face directory: config.json, tokenizer.json, safetensors. Relative to "
                "the job file."},
      {.path = "data",
       .type = kGroup,
       .words = "The text that the conversion learns from and is measured on."},
      {.path = "data.train",
       .type = kTexts,
       .max_items = 1000,
       .is_path = true,
       .required = true,
       .words = "Text files: .txt (one document each) or .jsonl (records with `text`), each also "
                ".gz, .xz or .zst. "
                "Relative to the job file."},
      {.path = "data.validation",
       .type = kTexts,
       .max_items = 1000,
       .is_path = true,
       .default_words = "whole documents held out of data.train",
       .words = "Text files that are only measured on, never trained on."},
      {.path = "data.validation_fraction",
       .type = kReal,
       .min = 0,
       .max = 0.5,
       .min_open = true,
       .default_value = "0.02",
       .words = "Share of the documents that is held out when data.validation is not given."},
      {.path = "data.sequence_length",
       .type = kInteger,
       .min = 16,
       .max = kMaxTokens,
       .default_value = "1024",
       .unit = "tokens",
       .words = "Length of the sequences that are trained and evaluated on."},
      {.path = "data.max_documents",
       .type = kInteger,
       .min = 0,
       .max = 1e12,
       .default_value = "0",
       .unit = "documents",
       .words = "Read only so many documents of data.train; 0: all."},
      {.path = "recipe",
       .allowed = {"lolcats", "ssd"},
       .later = {"linear", "inference_hybrid", "hedgecats"},
       .default_words = "none: recipe or stages must be given",
       .words = "How to convert. lolcats: attention transfer on the hybrid's outputs, then LoRA; "
                "the window tends to do "
                "all the work. ssd: transfer on attention weights, then LoRA with scheduled "
                "sliding-window dropout, "
                "so that the linear branch must pull too."},
      {.path = "stages",
       .type = kStages,
       .max_items = 8,
       .default_words = "the recipe's",
       .words = "Training stages spelled out instead of a recipe: a list of `attention_transfer: "
                "{...}` and "
                "`finetune: {...}`, run in order."},
  };
}

std::vector<Field> AttentionFields() {
  return {
      {.path = "attention", .type = kGroup, .words = "What replaces softmax attention."},
      {.path = "attention.feature_map",
       .type = kGroup,
       .words = "Turns queries and keys into the features of linear attention; trained."},
      {.path = "attention.feature_map.kind",
       .allowed = {"hedgehog"},
       .later = {"exp", "exp_shifted", "relu", "elu"},
       .default_value = "hedgehog",
       .words = "hedgehog: softmax of a linear map and of its negative, side by side."},
      {.path = "attention.feature_map.dim",
       .type = kInteger,
       .min = 0,
       .max = 4096,
       .default_value = "0",
       .words = "Width f of the linear map; the features are 2f wide. 0: the model's head_dim."},
      {.path = "attention.window",
       .type = kGroup,
       .words = "The softmax branch: each token's nearest keys."},
      {.path = "attention.window.kind",
       .allowed = {"sliding"},
       .later = {"terraced"},
       .default_value = "sliding",
       .words = "sliding: the last `size` keys, the token's own included."},
      {.path = "attention.window.size",
       .type = kInteger,
       .min = 1,
       .max = kMaxTokens,
       .default_value = "64",
       .unit = "tokens",
       .words = "Keys that each token sees by softmax. Below data.sequence_length."},
      {.path = "attention.window.sinks",
       .type = kInteger,
       .min = 0,
       .max = 1024,
       .default_value = "0",
       .unit = "tokens",
       .words = "First tokens of a sequence that stay in every token's window."},
      {.path = "attention.window.max_grad",
       .allowed = {"through", "detach"},
       .default_value = "through",
       .words = "Whether the gradient flows through the window's maximum. detach exists for parity "
                "with other "
                "implementations; it is a wrong gradient."},
      {.path = "attention.linear",
       .type = kGroup,
       .words = "The linear branch: all that lies beyond the window."},
      {.path = "attention.linear.span",
       .allowed = {"outside", "all"},
       .default_value = "outside",
       .words =
           "Keys that the linear branch reads: outside the window only, or all before the token."},
      {.path = "attention.mixing",
       .type = kGroup,
       .words = "How the two branches share one denominator."},
      {.path = "attention.mixing.factor",
       .allowed = {"sigmoid", "exp"},
       .default_value = "sigmoid",
       .words = "Activation of the trained window factor of each head."},
      {.path = "attention.mixing.initial",
       .type = kReal,
       .min = 0,
       .max = 100,
       .min_open = true,
       .default_value = "0.1",
       .words = "The window factor at the start. Below 1 with sigmoid."},
  };
}

std::vector<Field> TransferFields() {
  return {
      {.path = "attention_transfer",
       .type = kGroup,
       .words = "Stage: each layer's feature maps learn to imitate the base model's attention. At "
                "the top level it "
                "overrides the recipe's stage; in stages it stands in a list item."},
      {.path = "attention_transfer.objective",
       .allowed = {"weights", "hybrid_outputs"},
       .later = {"outputs", "hybrid_weights"},
       .default_value = "weights",
       .recipe_defaults = {{"lolcats", "hybrid_outputs"}},
       .words = "weights: the linear branch alone learns the attention weights. hybrid_outputs: "
                "the mix of both "
                "branches learns the attention's output."},
      {.path = "attention_transfer.steps",
       .type = kInteger,
       .min = 1,
       .max = 1e7,
       .default_words = "20M tokens' worth: 20,000,000 / (batch_size x sequence_length)",
       .words = "Optimiser steps."},
      {.path = "attention_transfer.batch_size",
       .type = kInteger,
       .min = 1,
       .max = 65536,
       .default_words = "8, or the next multiple of parallelism.data",
       .unit = "sequences",
       .words = "Sequences per step over all ranks; a multiple of parallelism.data."},
      {.path = "attention_transfer.learning_rate",
       .type = kReal,
       .min = 0,
       .max = 1,
       .min_open = true,
       .default_value = "0.01",
       .words = "Highest learning rate; cosine to 0 after the warm-up."},
      {.path = "attention_transfer.warmup_steps",
       .type = kInteger,
       .min = 0,
       .max = 1e7,
       .default_words = "30, or steps where those are fewer",
       .words = "Steps of linear warm-up; at most steps."},
  };
}

std::vector<Field> FinetuneFields() {
  return {
      {.path = "finetune",
       .type = kGroup,
       .words = "Stage: LoRA on the projections, next-token loss. At the top level it overrides "
                "the recipe's stage; in "
                "stages it stands in a list item."},
      {.path = "finetune.mode",
       .allowed = {"hybrid", "linear_only"},
       .default_value = "hybrid",
       .words = "The attention that is trained: both branches, or the linear branch alone."},
      {.path = "finetune.steps",
       .type = kInteger,
       .min = 1,
       .max = 1e7,
       .default_words = "20M tokens' worth: 20,000,000 / (batch_size x sequence_length)",
       .words = "Optimiser steps."},
      {.path = "finetune.batch_size",
       .type = kInteger,
       .min = 1,
       .max = 65536,
       .default_words = "8, or the next multiple of parallelism.data",
       .unit = "sequences",
       .words = "Sequences per step over all ranks; a multiple of parallelism.data."},
      {.path = "finetune.learning_rate",
       .type = kReal,
       .min = 0,
       .max = 1,
       .min_open = true,
       .default_value = "0.001",
       .words = "Highest learning rate; cosine to 0 after the warm-up. Large models: 1e-4."},
      {.path = "finetune.warmup_steps",
       .type = kInteger,
       .min = 0,
       .max = 1e7,
       .default_words = "30, or steps where those are fewer",
       .words = "Steps of linear warm-up; at most steps."},
      {.path = "finetune.train_maps",
       .type = kFlag,
       .default_value = "false",
       .recipe_defaults = {{"ssd", "true"}},
       .words = "Feature maps and window factors train together with LoRA."},
      {.path = "finetune.clip_norm",
       .type = kReal,
       .min = 0,
       .max = 1e6,
       .default_value = "1",
       .words = "Gradients are scaled down to this norm; 0: never."},
      {.path = "finetune.lora",
       .type = kGroup,
       .words = "Low-rank updates of the attention's projections."},
      {.path = "finetune.lora.rank",
       .type = kInteger,
       .min = 1,
       .max = 512,
       .default_value = "8",
       .words = "Rank of each update."},
      {.path = "finetune.lora.alpha",
       .type = kReal,
       .min = 0,
       .max = 4096,
       .min_open = true,
       .default_value = "16",
       .words = "The update is scaled by alpha / rank."},
      {.path = "finetune.lora.targets",
       .type = kTexts,
       .allowed = {"q_proj", "k_proj", "v_proj", "o_proj"},
       .max_items = 4,
       .default_value = "[q_proj, k_proj, v_proj, o_proj]",
       .words = "Projections that get an update."},
      {.path = "finetune.ssd",
       .type = kGroup,
       .words = "Scheduled sliding-window dropout: on some steps the window is off, so the linear "
                "branch has to work."},
      {.path = "finetune.ssd.schedule",
       .type = kReals,
       .min = 0,
       .max = 1,
       .max_items = 64,
       .default_words = "no dropout",
       .recipe_defaults = {{"ssd", "[0.9, 0.75, 0.5]"}},
       .words = "Probabilities that the window is off, over equal parts of the stage."},
      {.path = "finetune.ssd.granularity",
       .allowed = {"micro_batch", "layer", "row"},
       .default_value = "micro_batch",
       .words = "What one draw decides for: the whole model on a micro-batch, each layer, or each "
                "sequence."},
  };
}

std::vector<Field> RunFields() {
  return {
      {.path = "parallelism", .type = kGroup, .words = "How the job spreads over slots."},
      {.path = "parallelism.data",
       .type = kInteger,
       .min = 1,
       .max = 64,
       .default_value = "1",
       .unit = "ranks",
       .words = "Ranks that share each batch; one slot each."},
      {.path = "parallelism.threads_per_rank",
       .type = kInteger,
       .min = 0,
       .max = 1024,
       .default_value = "0",
       .words = "CPU threads of each rank; 0: the worker's cores divided by its slots."},
      {.path = "checkpoint",
       .type = kGroup,
       .words = "How often training state is saved. The end of a stage and a stop always save."},
      {.path = "checkpoint.every_steps",
       .type = kInteger,
       .min = 0,
       .max = 1e7,
       .default_value = "0",
       .words = "Save after so many steps; 0: by time only."},
      {.path = "checkpoint.every_seconds",
       .type = kReal,
       .min = 0,
       .max = 86400,
       .default_value = "60",
       .unit = "seconds",
       .words = "Save when so much time has passed; 0: by steps only."},
      {.path = "checkpoint.keep",
       .type = kInteger,
       .min = 1,
       .max = 1000,
       .default_value = "2",
       .words = "Newest checkpoints that stay on disk."},
      {.path = "evaluate", .type = kGroup, .words = "How the components are measured at the end."},
      {.path = "evaluate.sequences",
       .type = kInteger,
       .min = 2,
       .max = 65536,
       .default_value = "64",
       .words = "Validation sequences that every mode is measured on."},
      {.path = "evaluate.sinks",
       .type = kInteger,
       .min = 1,
       .max = 1024,
       .default_value = "8",
       .unit = "tokens",
       .words = "First tokens that the mode sinks_only reads: the zero of the scale `recovered`."},
      {.path = "evaluate.bootstrap",
       .type = kInteger,
       .min = 100,
       .max = 100000,
       .default_value = "1000",
       .words = "Resamples for the confidence intervals."},
      {.path = "evaluate.passkey",
       .type = kGroup,
       .words =
           "Can the model repeat a number it read a while ago? Measured by distance and mode."},
      {.path = "evaluate.passkey.prompts",
       .type = kInteger,
       .min = 0,
       .max = 10000,
       .default_words = "32, or 0 where a prompt has fewer than 128 tokens",
       .words = "Prompts per distance; 0: not measured."},
      {.path = "evaluate.passkey.distances",
       .type = kIntegers,
       .min = 1,
       .max = kMaxTokens,
       .max_items = 16,
       .default_words = "16, twice the window, and length - 128",
       .unit = "tokens",
       .words = "Tokens between the number and the question; at most length - 64."},
      {.path = "evaluate.passkey.length",
       .type = kInteger,
       .min = 0,
       .max = kMaxTokens,
       .default_words = "data.sequence_length",
       .unit = "tokens",
       .words = "Tokens per prompt."},
      {.path = "export",
       .type = kGroup,
       .words = "The converted model that is written at the end."},
      {.path = "export.dtype",
       .allowed = {"float32", "bfloat16"},
       .default_value = "float32",
       .words = "Type of the exported weights; feature maps and window factors stay float32."},
  };
}

constexpr std::string_view kLaterFields[] = {"attention.retain",
                                             "attention.cache",
                                             "attention.feature_map.tie_kv_heads",
                                             "attention.feature_map.two_sided",
                                             "attention.feature_map.bias",
                                             "attention.window.align_end",
                                             "attention.mixing.kind",
                                             "attention.mixing.affine",
                                             "attention.mixing.window_gain",
                                             "finetune.early_stop",
                                             "attention_transfer.early_stop",
                                             "finetune.ssd.dropped_span",
                                             "finetune.ssd.window_schedule",
                                             "parallelism.tensor",
                                             "data.document_mask",
                                             "evaluate.suites"};

std::string Join(const std::vector<std::string_view>& items) {
  std::string text;
  for (const auto item : items) text += (text.empty() ? "" : ", ") + std::string(item);
  return text;
}

}  // namespace

const std::vector<Field>& Fields() {
  static const auto& fields = *new std::vector<Field>([] {
    std::vector<Field> all;
    for (const auto& part :
         {JobFields(), AttentionFields(), TransferFields(), FinetuneFields(), RunFields()}) {
      all.insert(all.end(), part.begin(), part.end());
    }
    return all;
  }());
  return fields;
}

std::string TablePath(std::string_view path) {
  std::string plain;
  bool in_index = false;
  for (const char c : path) {
    if (c == '[') in_index = true;
    if (!in_index) plain += c;
    if (c == ']') in_index = false;
  }
  constexpr std::string_view kStages = "stages.";
  return plain.starts_with(kStages) ? plain.substr(kStages.size()) : plain;
}

const Field* FindField(std::string_view path) {
  const std::string wanted = TablePath(path);
  const auto& fields = Fields();
  const auto row = std::ranges::find_if(fields, [&](const Field& f) { return f.path == wanted; });
  return row == fields.end() ? nullptr : &*row;
}

bool IsLaterField(std::string_view path) {
  return std::ranges::find(kLaterFields, TablePath(path)) != std::end(kLaterFields);
}

std::string TypeWords(const Field& field) {
  switch (field.type) {
    case kGroup:
      return "group of fields";
    case kStages:
      return "list of stages";
    case kText:
      return "text";
    case kInteger:
      return "integer";
    case kReal:
      return "number";
    case kFlag:
      return "true or false";
    case kTexts:
      return "list of texts";
    case kIntegers:
      return "list of integers";
    case kReals:
      return "list of numbers";
  }
  return "";
}

std::string AllowedWords(const Field& field) {
  if (!field.allowed.empty()) return "one of " + Join(field.allowed);
  const bool is_number = field.type == kInteger || field.type == kReal || field.type == kIntegers ||
                         field.type == kReals;
  if (!is_number) return "";
  if (field.min_open)
    return "above " + NumberText(field.min) + ", at most " + NumberText(field.max);
  return "in [" + NumberText(field.min) + ", " + NumberText(field.max) + "]";
}

std::string DefaultWords(const Field& field) {
  std::string text(field.default_value.empty() ? field.default_words : field.default_value);
  for (const auto& other : field.recipe_defaults) {
    text += " (" + std::string(other.recipe) + ": " + std::string(other.value) + ")";
  }
  return text;
}

std::string DefaultAdvice(const Field& field) {
  if (field.required || field.path == "recipe" || field.path == "stages") return "";
  return "; delete it to take the default, " + DefaultWords(field);
}

std::string NumberText(double number) {
  char buffer[64];
  // Integers without an exponent: 10000000, not 1e+07.
  const bool whole = number == static_cast<double>(static_cast<int64_t>(number)) &&
                     number > -1e16 && number < 1e16;
  const auto end = whole
                       ? std::to_chars(buffer, buffer + sizeof buffer, static_cast<int64_t>(number))
                       : std::to_chars(buffer, buffer + sizeof buffer, number);
  return {buffer, end.ptr};
}

}  // namespace tandem
