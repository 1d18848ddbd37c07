// JobInputs: what an attempt loads before its first step: models, parameters, tokens.
//
// All ranks load together; rank 0 alone checks digests. Leaves by exceptions (guard.h): kBadPlan
// for a plan that does not fit the model, kDataOrStorage for files that cannot be used.
#pragma once

#include <memory>
#include <string>

#include "worker/comm/collective.h"
#include "worker/data/training_data.h"
#include "worker/model/llama.h"
#include "worker/model/parameters.h"
#include "worker/plan/plan.h"

namespace tandem {

struct JobInputs {
  // What is converted; with recipe diagnose the converted model itself.
  std::unique_ptr<Llama> model;
  // Recipe diagnose: the base of the converted model, where it is given. Else null.
  std::unique_ptr<Llama> reference;
  std::unique_ptr<Parameters> parameters;
  std::unique_ptr<TrainingData> train;
  std::string base_sha256;    // of model's directory (model_digest.h)
  std::string retain_scores;  // JSON (retained_choice.h), or empty
};

// Fills plan.attention.retained where the plan leaves the choice to the induction score.
JobInputs LoadInputs(Plan& plan, Collective& collective);

}  // namespace tandem
