// The stage cache: same inputs, same entry; anything else, another; and a broken entry is a miss.
#include "worker/rank/stage_cache.h"

#include <ATen/ops/full.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <ctime>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>

#include "base/files.h"
#include "worker/rank/metrics_history.h"
#include "worker/rank/stage_state.h"

namespace tandem {
namespace {

class StageCacheTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/tandem-cache-XXXXXX";
    root_ = mkdtemp(name);
    plan_.stage_cache = root_ + "/stages";
    plan_.job_uid = "u1";
    plan_.epoch = 1;
    plan_.data.tokens = "/w/cache/tokens/abc";
    StagePlan transfer;
    transfer.kind = "attention_transfer";
    transfer.steps = 5;
    StagePlan finetune = transfer;
    finetune.kind = "finetune";
    plan_.stages = {transfer, finetune};
  }
  void TearDown() override { EXPECT_TRUE(RemoveTree(root_).ok()); }

  std::string Key(const std::function<void(Plan&)>& change = {}, int64_t stage = 0) const {
    Plan plan = plan_;
    if (change) change(plan);
    return StageCache(plan, "base").KeyOf(stage);
  }

  std::string root_;
  Plan plan_;
};

TEST_F(StageCacheTest, TheKeyCoversWhatTransferDependsOnAndNothingElse) {
  const std::string key = Key();
  EXPECT_EQ(key.size(), 64u);
  const std::function<void(Plan&)> same[] = {
      [](Plan& p) { p.job_uid = "u2"; },
      [](Plan& p) { p.stages[1].steps = 9; },
      [](Plan& p) { p.attention.window_gain = 10; },
      [](Plan& p) { p.data.tokens = "/elsewhere/abc"; },
      [](Plan& p) { p.evaluate.sequences = 3; },
      [](Plan& p) { p.recipe = "ssd"; },
  };
  for (const auto& change : same) EXPECT_EQ(Key(change), key);
  const std::function<void(Plan&)> other[] = {
      [](Plan& p) { p.seed = 1; },
      [](Plan& p) { p.stages[0].steps = 6; },
      [](Plan& p) { p.stages[0].objective = "hybrid_outputs"; },
      [](Plan& p) { p.attention.window_size = 32; },
      [](Plan& p) {
        p.attention.retained = {{1, 0}};
      },
      [](Plan& p) { p.data.tokens = "/w/cache/tokens/abd"; },
      [](Plan& p) { p.data.sequence_length = 64; },
      [](Plan& p) { p.ranks = 2; },
      [](Plan& p) { p.threads_per_rank = 2; },
      [](Plan& p) { p.device = "cuda"; },
  };
  for (const auto& change : other) EXPECT_NE(Key(change), key);
  EXPECT_NE(StageCache(plan_, "another base").KeyOf(0), key);
  EXPECT_EQ(Key([](Plan& p) { p.stage_cache.clear(); }), "");
}

TEST_F(StageCacheTest, AFinetuneStagesKeyCoversTheStagesBeforeIt) {
  const std::string key = Key({}, 1);
  EXPECT_EQ(key.size(), 64u);
  EXPECT_NE(key, Key());
  const std::function<void(Plan&)> same[] = {
      [](Plan& p) { p.recipe = "inference_hybrid"; },
      [](Plan& p) { p.served_mode = "linear_only"; },
      [](Plan& p) { p.attention.mixing_kind = "mass"; },
      [](Plan& p) { p.attention.cache_size = 128; },
      [](Plan& p) { p.stages.push_back(p.stages[1]); },
  };
  for (const auto& change : same) EXPECT_EQ(Key(change, 1), key);
  const std::function<void(Plan&)> other[] = {
      [](Plan& p) { p.stages[0].steps = 6; },
      [](Plan& p) { p.stages[1].lora_rank = 4; },
      [](Plan& p) { p.stages[1].stop_component = "hybrid"; },
      [](Plan& p) { p.stages[1].ssd_schedule = {0.5}; },
      [](Plan& p) { p.stages[1].mode = "linear_only"; },
      [](Plan& p) { p.stages.erase(p.stages.begin()), p.stages.push_back(p.stages[0]); },
      [](Plan& p) { p.attention.mixing_initial = 2; },
  };
  for (const auto& change : other) EXPECT_NE(Key(change, 1), key);
}

TEST_F(StageCacheTest, WhatIsStoredComesBackAndABrokenEntryIsAMiss) {
  const StageCache cache(plan_, "base");
  const std::string key = cache.KeyOf(0);
  EXPECT_TRUE(cache.Load(key).tensors.empty());
  const NamedTensors tensors = {{"layers.0.feature_map_q", at::full({2, 3}, 1.5, at::kFloat)}};
  cache.Store(key, 0, tensors, "{\"step\":1}\n");
  const StageCache::Entry entry = cache.Load(key);
  ASSERT_EQ(entry.tensors.size(), 1u);
  EXPECT_TRUE(entry.tensors.at("layers.0.feature_map_q").equal(tensors.begin()->second));
  EXPECT_EQ(entry.metrics, "{\"step\":1}\n");
  cache.Store(key, 0, tensors, "another job's\n");
  EXPECT_EQ(cache.Load(key).metrics, "{\"step\":1}\n") << "the first stays";
  EXPECT_EQ(ListFolder(plan_.stage_cache)->size(), 1u) << "nothing is left over";

  const std::string shard = JoinPath(plan_.stage_cache, key + "/state/shard-0.safetensors");
  std::string bytes = *ReadFile(shard);
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  ASSERT_TRUE(WriteFileDurably(shard, bytes).ok());
  EXPECT_TRUE(cache.Load(key).tensors.empty());
}

TEST(StageStateTest, AResultHasNoMomentsAndATransfersHasNoLora) {
  const at::Tensor tensor = at::full({1}, 1.0, at::kFloat);
  NamedTensors state;
  for (const char* name : {"layers.0.feature_map_q", "layers.0.q_proj.lora_A", "stop.curve",
                           "stop.kept.layers.0.q_proj.lora_A", "adam.m.layers.0.feature_map_q"}) {
    state[name] = tensor;
  }
  const auto names = [](const NamedTensors& tensors) {
    std::set<std::string> all;
    for (const auto& [name, value] : tensors) all.insert(name);
    return all;
  };
  using Names = std::set<std::string>;
  StagePlan stage;
  stage.kind = "attention_transfer";
  EXPECT_EQ(names(ResultOf(stage, state)), (Names{"layers.0.feature_map_q", "stop.curve"}));
  stage.kind = "finetune";
  EXPECT_EQ(names(ResultOf(stage, state)),
            (Names{"layers.0.feature_map_q", "layers.0.q_proj.lora_A", "stop.curve",
                   "stop.kept.layers.0.q_proj.lora_A"}));
  EXPECT_EQ(names(ParametersOf(state)),
            (Names{"layers.0.feature_map_q", "layers.0.q_proj.lora_A"}));
}

class StageCacheBoundTest : public StageCacheTest {
 protected:
  // Stores an entry of its own for each seed.
  std::string Store(uint64_t seed, int64_t max_bytes) {
    plan_.seed = seed;
    const StageCache cache(plan_, "base", max_bytes);
    const std::string key = cache.KeyOf(0);
    cache.Store(key, 0, {{"layers.0.feature_map_q", at::full({1000}, 1.0, at::kFloat)}}, "");
    return key;
  }
  std::string FolderOf(const std::string& key) const { return JoinPath(plan_.stage_cache, key); }
  bool Has(const std::string& key) const { return PathExists(FolderOf(key)); }
  // Makes the entry, or what was left over, so old.
  static void SetAge(const std::string& folder, int64_t seconds) {
    timespec times[2] = {{time(nullptr) - seconds, 0}, {time(nullptr) - seconds, 0}};
    ASSERT_EQ(utimensat(AT_FDCWD, folder.c_str(), times, 0), 0);
  }

  static constexpr int64_t kMany = int64_t{1} << 40;
  static constexpr int64_t kTwo = 12'000;  // an entry has 4 to 6 kB
};

TEST_F(StageCacheBoundTest, TheLeastRecentlyUsedEntryGoesFirst) {
  const std::string a = Store(1, kMany), b = Store(2, kMany);
  SetAge(FolderOf(a), 200);
  SetAge(FolderOf(b), 100);
  EXPECT_FALSE(StageCache(plan_, "base").Load(a).tensors.empty());  // used: b is the oldest now
  const std::string c = Store(3, kTwo);
  EXPECT_TRUE(Has(a));
  EXPECT_FALSE(Has(b));
  EXPECT_TRUE(Has(c));
  EXPECT_EQ(ListFolder(plan_.stage_cache)->size(), 2u) << "nothing is left over";
  const std::string d = Store(4, 1);
  EXPECT_TRUE(Has(d)) << "the new entry stays, however small the bound";
  EXPECT_EQ(ListFolder(plan_.stage_cache)->size(), 1u);
}

TEST_F(StageCacheBoundTest, WhatAJobReadsIsNotRemoved) {
  const std::string a = Store(1, kMany);
  StageCache::Entry read = StageCache(plan_, "base").Load(a);
  ASSERT_TRUE(read.lease.held());
  SetAge(FolderOf(a), 500);
  const std::string b = Store(2, 1);
  EXPECT_TRUE(Has(a)) << "a job reads it";
  EXPECT_FALSE(StageCache(plan_, "base").Load(a).tensors.empty());
  read = {};
  Store(3, 1);
  EXPECT_FALSE(Has(a));
  EXPECT_FALSE(Has(b));
  EXPECT_TRUE(StageCache(plan_, "base").Load(a).tensors.empty()) << "a miss";
}

TEST_F(StageCacheBoundTest, WhatDeadWritersLeftGoesAfterADay) {
  const std::string old = FolderOf("k.tmp-u9-1"), fresh = FolderOf("k.tmp-u9-2");
  for (const std::string& folder : {old, fresh}) ASSERT_TRUE(MakeFolders(folder).ok());
  SetAge(old, 100'000);
  Store(1, kMany);
  EXPECT_FALSE(PathExists(old));
  EXPECT_TRUE(PathExists(fresh)) << "its writer may be alive";
}

TEST_F(StageCacheTest, TheHistoryTakesTheLaterAttemptsLines) {
  const auto write = [&](int epoch, const std::string& text) {
    const std::string folder = root_ + "/attempts/" + std::to_string(epoch);
    ASSERT_TRUE(MakeFolders(folder).ok());
    ASSERT_TRUE(WriteFileDurably(folder + "/metrics.jsonl", text).ok());
  };
  const auto line = [](int step, double loss) {
    return nlohmann::json{{"stage", "finetune"}, {"stage_index", 0}, {"step", step}, {"loss", loss}}
               .dump() +
           "\n";
  };
  write(1, line(1, 3) + line(2, 9) + "{\"stage_index\": 0, \"st");
  write(10, line(2, 3.5) + "no json\n" + line(3, 3));
  write(11, line(3, 99));
  const auto history = ReadMetricsHistory(root_, 10);
  ASSERT_TRUE(history.ok());
  ASSERT_EQ(history->size(), 3u);
  EXPECT_NE(history->at({0, 2}).find("3.5"), std::string::npos);
  EXPECT_EQ(history->at({0, 3}).find("99"), std::string::npos) << "a later attempt than ours";
}

TEST_F(StageCacheTest, DivergenceIsSaidInWords) {
  MetricsHistory history;
  for (int64_t step = 1; step <= 40; ++step) {
    const double loss = step < 20 ? 2.7 : 7.5;
    history[{1, step}] = nlohmann::json{
        {"stage", "finetune"},
        {"stage_index", 1},
        {"step", step},
        {"loss", loss}}.dump();
    history[{0, step}] = nlohmann::json{{"stage", "attention_transfer"}, {"loss", 5.0}}.dump();
  }
  EXPECT_EQ(DivergenceWords(history, 0), "");
  EXPECT_EQ(DivergenceWords(history, 2), "");
  EXPECT_EQ(DivergenceWords(history, 1),
            "stage 1 (finetune) diverged: its loss rose from 2.700 to 7.500; lower "
            "finetune.learning_rate");
}

TEST_F(StageCacheTest, TransferTellsHowFarItsLastStepWasFromTheTeacher) {
  MetricsHistory history;
  history[{0, 1}] = R"({"loss": 4.0, "divergences": [9.0, 9.0]})";
  history[{0, 2}] = R"({"loss": 3.0, "divergences": [0.25, 0.75, 0.5]})";
  history[{2, 1}] = R"({"loss": 2.0})";
  EXPECT_EQ(TransferDivergence(history, 0),
            R"({"stage_index":0,"layers":[0.25,0.75,0.5],"mean":0.5,"worst_layer":1})");
  EXPECT_EQ(TransferDivergence(history, 1), "");
  EXPECT_EQ(TransferDivergence(history, 2), "");
}

}  // namespace
}  // namespace tandem
