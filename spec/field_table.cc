// The rows of the table of fields: the job itself, model, data; and all rows together.
#include "spec/field_parts.h"

namespace tandem {

using enum FieldType;

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
                "the job file. Recipe diagnose: a converted model."},
      {.path = "model.base",
       .is_path = true,
       .default_words = "the converted model's own weights with softmax attention",
       .words = "Recipe diagnose only: the model that was converted; its softmax is the reference "
                "that the components are measured against."},
      {.path = "model.dtype",
       .allowed = {"float32", "bfloat16"},
       .default_value = "float32",
       .words = "Type that the frozen base computes in. What trains stays float32. bfloat16 needs "
                "parallelism.device cuda."},
      {.path = "data",
       .type = kGroup,
       .words = "The text that the conversion learns from and is measured on."},
      {.path = "data.train",
       .type = kTexts,
       .max_items = 1000,
       .is_path = true,
       .required = true,
       .words = "Text files: .txt (one document each) or .jsonl (records with `text`, with "
                "instruction and output in Alpaca's template, messages in the model's chat "
                "template, or prompt and response), each also .gz, .xz or .zst; .parquet, .arrow "
                "or a save_to_disk folder with the same columns; or another job's token shard, "
                ".bin. file.jsonl[0:200] reads these rows alone. Relative to the job file."},
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
       .words = "Read only so many documents of data.train; 0: all. With data.weights, of each of "
                "its items."},
      {.path = "data.weights",
       .type = kReals,
       .min = 0,
       .max = 1e6,
       .min_open = true,
       .max_items = 1000,
       .default_words = "none: the files one after the other, each document once",
       .words = "How often each item of data.train is drawn, relative to the others: one number "
                "per item."},
      {.path = "data.document_mask",
       .type = kFlag,
       .default_value = "false",
       .words = "In training, attention does not cross from one document to the next inside a "
                "sequence. Evaluation reads sequences as they are packed."},
      {.path = "data.text_key",
       .default_value = "text",
       .words = "The key, or column, of a record that holds its text."},
      {.path = "data.train_on_prompt",
       .type = kFlag,
       .default_value = "false",
       .words = "Prompts of instruction and chat records are labels too; otherwise only the "
                "answers are."},
      {.path = "recipe",
       .allowed = {"linear", "inference_hybrid", "lolcats", "hedgecats", "ssd", "window_control",
                   "diagnose"},
       .default_words = "none: recipe or stages must be given",
       .words = "How to convert. lolcats: attention transfer on the hybrid's outputs, then LoRA; "
                "the window tends to do "
                "all the work. ssd: transfer on attention weights, then LoRA with scheduled "
                "sliding-window dropout, "
                "so that the linear branch must pull too. hedgecats: the same transfer, then a "
                "short LoRA of the hybrid that stops before the linear branch gets worse. linear: "
                "no window, in training or use. inference_hybrid: trained as linear, the window "
                "is added for use. window_control: the window alone, LoRA without transfer; the "
                "control that a hybrid has to beat. diagnose: trains nothing, measures what "
                "model.path is."},
      {.path = "stages",
       .type = kStages,
       .max_items = 8,
       .default_words = "the recipe's",
       .words = "Training stages spelled out instead of a recipe: a list of `attention_transfer: "
                "{...}` and "
                "`finetune: {...}`, run in order."},
  };
}

const std::vector<Field>& Fields() {
  static const auto& fields = *new std::vector<Field>([] {
    std::vector<Field> all;
    for (const auto& part : {JobFields(), AttentionFields(), TransferFields(), FinetuneFields(),
                             RunFields(), EvaluateFields(), ExportFields()}) {
      all.insert(all.end(), part.begin(), part.end());
    }
    return all;
  }());
  return fields;
}

}  // namespace tandem
