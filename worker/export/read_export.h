// Reading a converted model back: an exported directory as model, parameters and attention form.
//
// The inverse of export.h, for generation and diagnosis. config.json's object "hybrid" says what
// the conversion is; keys that are absent mean what exports meant before they existed, unknown keys
// and words are refused, all faults at once. The base family is base_model_type. Free of state;
// blocking; every fault of the files is a Status that names file, key, value and what is allowed.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/status.h"
#include "worker/model/attention/form.h"
#include "worker/model/llama.h"
#include "worker/model/parameters.h"

namespace tandem {

// What "hybrid" says.
struct ConvertedForm {
  AttentionForm attention;
  ComponentMode mode = ComponentMode::kHybrid;  // as served: hybrid, linear_only or window_only
  ParameterOptions parameters;                  // without LoRA
};

struct ConvertedModel {
  ConvertedForm form;
  std::unique_ptr<Llama> model;  // the base's family, LoRA merged
  std::unique_ptr<Parameters> parameters;
};

// config.json's text; base: the family's shape. `where` opens the messages.
Result<ConvertedForm> ParseConvertedForm(const std::string& json, const ModelConfig& base,
                                         const std::string& where);

// False for a folder without config.json, or with one of another kind of model.
bool IsConvertedModel(const std::string& folder);

Result<ConvertedModel> ReadConvertedModel(const std::string& folder,
                                          const ComputeDevice& device = {});

}  // namespace tandem
