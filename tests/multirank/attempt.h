// Attempts of the real tandem-rank under mpirun, on the example's base model and random tokens: a
// small transfer and a small finetune with window dropout, evaluation and export.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/digest.h"
#include "base/files.h"
#include "tests/unit/data/shard_files.h"
#include "worker/data/philox.h"
#include "worker/plan/checkpoint_manifest.h"
#include "worker/plan/plan.h"

namespace tandem::testing {

inline std::vector<std::vector<uint16_t>> RandomDocuments(int64_t count, int64_t stream_number) {
  const PhiloxStream stream(1, stream_number, RandomPurpose::kTest);
  std::vector<std::vector<uint16_t>> documents(static_cast<size_t>(count));
  for (size_t i = 0; i < documents.size(); ++i) {
    // A short word list makes text that can be learned.
    for (int64_t t = 0; t < 200; ++t) {
      const int64_t word = stream.Below(40, t, static_cast<int64_t>(i));
      documents[i].push_back(static_cast<uint16_t>(2 + word * word));
    }
  }
  return documents;
}

// train, validation and a manifest, as python/tandem/prepare.py writes them.
inline void WriteTokenFolder(const std::string& folder) {
  ASSERT_TRUE(MakeFolders(folder).ok());
  ASSERT_TRUE(WriteShard(folder + "/train", MakeShard(RandomDocuments(40, 1))).ok());
  ASSERT_TRUE(WriteShard(folder + "/validation", MakeShard(RandomDocuments(10, 2))).ok());
  nlohmann::json files;
  for (const char* name : {"train.bin", "train.idx", "validation.bin", "validation.idx"}) {
    const std::string path = folder + "/" + name;
    files[name] = {{"bytes", std::filesystem::file_size(path)},
                   {"sha256", Sha256OfFile(path).value()}};
  }
  const std::string tokenizer = std::string(TANDEM_SOURCE_DIR) + "/examples/base-4m/tokenizer.json";
  const nlohmann::json manifest = {{"version", 1},
                                   {"tokenizer_sha256", *Sha256OfFile(tokenizer)},
                                   {"vocab_size", 4096},
                                   {"max_id", 2 + 39 * 39},
                                   {"files", files}};
  ASSERT_TRUE(WriteFileDurably(folder + "/manifest.json", manifest.dump()).ok());
}

inline Plan SmallPlan(const std::string& work) {
  Plan plan;
  plan.job_uid = "multirank";
  plan.job_name = "multirank";
  plan.epoch = 1;
  plan.seed = 5;
  plan.model = std::string(TANDEM_SOURCE_DIR) + "/examples/base-4m";
  plan.job_folder = work;
  plan.spec_sha256 = std::string(64, 'a');
  plan.spec_json = "{}";
  plan.attention.window_size = 8;
  plan.data.tokens = work + "/tokens";
  plan.data.sequence_length = 64;
  StagePlan transfer;
  transfer.kind = "attention_transfer";
  transfer.objective = "weights";
  transfer.steps = 10;
  transfer.batch_size = 2;
  transfer.learning_rate = 1e-2;
  transfer.warmup_steps = 2;
  StagePlan finetune;
  finetune.kind = "finetune";
  finetune.steps = 10;
  finetune.batch_size = 2;
  finetune.learning_rate = 1e-3;
  finetune.train_maps = true;
  finetune.train_factor = true;
  finetune.lora_targets = {"q_proj", "k_proj", "v_proj", "o_proj"};
  finetune.ssd_schedule = {0.5};
  finetune.ssd_granularity = "row";
  // Measures as it goes, and its state is part of every checkpoint; it never strikes.
  finetune.stop_component = "linear_only";
  finetune.stop_every = 3;
  finetune.stop_slack = 100;
  finetune.stop_sequences = 6;
  plan.stages = {transfer, finetune};
  plan.evaluate.sequences = 4;
  plan.evaluate.bootstrap = 50;
  plan.evaluate.passkey = false;
  plan.export_classes = std::string(TANDEM_SOURCE_DIR) + "/python/hybrid_linear";
  plan.checkpoint_every_seconds = 0;
  plan.checkpoint_every_steps = 4;
  return plan;
}

// Writes plan.json and starts mpirun in its own process group.
inline pid_t StartAttempt(Plan plan, int64_t ranks) {
  plan.ranks = ranks;
  plan.attempt_folder = plan.job_folder + "/attempts/" + std::to_string(plan.epoch);
  EXPECT_TRUE(MakeFolders(plan.attempt_folder).ok());
  const std::string file = plan.attempt_folder + "/plan.json", count = std::to_string(ranks);
  EXPECT_TRUE(WriteFileDurably(file, PlanToJson(plan)).ok());
  const std::string binary = std::string(TANDEM_BINARY_DIR) + "/bin/tandem-rank";
  const pid_t child = fork();
  if (child != 0) return child;
  setpgid(0, 0);
  setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
  setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
  execlp("mpirun", "mpirun", "-np", count.c_str(), "--oversubscribe", "--bind-to", "none", "--mca",
         "pml", "ob1", "--mca", "btl", "tcp,self,vader", "--mca", "btl_tcp_if_include", "lo",
         "--mca", "btl_vader_single_copy_mechanism", "none", "--mca", "mpi_yield_when_idle", "1",
         "--mca", "odls_base_sigkill_timeout", "0", binary.c_str(), "--plan", file.c_str(),
         static_cast<char*>(nullptr));
  _exit(127);
}

inline int WaitForExit(pid_t mpirun) {
  int status = 0;
  waitpid(mpirun, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

inline std::string ErrorsOf(const Plan& plan) {
  const std::string path =
      plan.job_folder + "/attempts/" + std::to_string(plan.epoch) + "/rank-0.err";
  const auto text = ReadFile(path);
  return text.ok() ? *text : text.status().ToString();
}

// "stage step" -> loss, of one attempt.
inline std::map<std::string, double> LossesOf(const Plan& plan) {
  std::map<std::string, double> losses;
  std::ifstream file(plan.job_folder + "/attempts/" + std::to_string(plan.epoch) +
                     "/metrics.jsonl");
  for (std::string line; std::getline(file, line);) {
    const nlohmann::json json = nlohmann::json::parse(line, nullptr, false);
    if (json.is_discarded()) continue;  // the last line of a killed rank
    losses[std::to_string(json["stage_index"].get<int>()) + " " +
           std::to_string(json["step"].get<int>())] = json["loss"];
  }
  return losses;
}

// The digests of what the exported model and its last checkpoint hold.
inline std::map<std::string, std::string> ResultOf(const Plan& plan) {
  std::map<std::string, std::string> digests;
  const std::string model = plan.job_folder + "/artifacts/model";
  const auto weights = Sha256OfFile(model + "/model.safetensors");
  EXPECT_TRUE(weights.ok()) << weights.status().ToString();
  if (weights.ok()) digests["weights"] = *weights;
  const auto newest = FindNewestCheckpoint(plan.job_folder, plan.spec_sha256, plan.epoch + 1);
  if (newest.ok() && newest->has_value()) {
    digests["checkpoint"] = VerifyCheckpoint(**newest).value().files.at(0).sha256;
  }
  return digests;
}

}  // namespace tandem::testing
