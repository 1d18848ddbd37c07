// The agent's parts that need no process: flags, causes, the plan, the outbox, logs.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <nlohmann/json.hpp>

#include "base/files.h"
#include "tests/unit/agent/world.h"
#include "worker/agent/attempt_files.h"
#include "worker/agent/exit_cause.h"
#include "worker/agent/flags.h"
#include "worker/agent/gpu_pool.h"
#include "worker/agent/local_launcher.h"
#include "worker/agent/log_bound.h"
#include "worker/agent/log_reader.h"
#include "worker/agent/outbox.h"
#include "worker/agent/plan_builder.h"

namespace tandem::agent {
namespace {

ParsedFlags Parsed(std::vector<const char*> argv) {
  argv.insert(argv.begin(), "tandem-worker");
  return ParseFlags(static_cast<int>(argv.size()), argv.data(), "/nowhere/bin");
}

TEST(Flags, AllThatIsWrongIsSaidAtOnce) {
  const auto parsed = Parsed(
      {"--slots", "0", "--metrics", "0.0.0.0:1", "--name", "a/b", "--coordinator", "here",
       "--threads-per-slot", "many", "--python", "/nowhere/python", "--runtime",
       "/tmp/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"});
  std::string all;
  for (const std::string& error : parsed.errors) all += error + "\n";
  for (const char* wanted :
       {"--slots is '0'; must be a whole number in [1, 4096]", "--threads-per-slot is 'many'",
        "--coordinator is 'here'; must be HOST:PORT", "--work is missing", "--name is 'a/b'",
        "--metrics is '0.0.0.0:1'; only loopback", "--runtime is", "no Python at /nowhere/python",
        "no tandem-rank at /nowhere/bin/tandem-rank"}) {
    EXPECT_NE(all.find(wanted), std::string::npos) << "missing: " << wanted << "\nin:\n" << all;
  }
  EXPECT_EQ(parsed.errors.size(), 9u) << all;
  EXPECT_FALSE(Parsed({"--frobnicate"}).errors.empty());
  EXPECT_FALSE(Parsed({"--help"}).help.empty());
}

// The coordinator would refuse the registration, for ever.
TEST(Flags, ANameThatNoCoordinatorTakesIsRefusedAtTheStart) {
  for (const char* name : {"_w", "-w", ".w"}) {
    const std::string flag = std::string("--name=") + name;
    std::string all;
    for (const std::string& error : Parsed({flag.c_str()}).errors) all += error;
    EXPECT_NE(all.find("starting with a letter or digit"), std::string::npos)
        << name << ": " << all;
  }
}

TEST(Flags, GpusAreNamedOnceEachOrFoundOrNone) {
  for (const char* text : {"--gpus=0,0", "--gpus=,", "--gpus=0,,1"}) {
    std::string all;
    for (const std::string& error : Parsed({text}).errors) all += error;
    EXPECT_NE(all.find("must be auto, none, or each GPU once"), std::string::npos) << text << all;
  }
  EXPECT_EQ(GpusOf(Parsed({"--gpus=1, GPU-7"}).flags), (std::vector<GpuId>{"1", "GPU-7"}));
  EXPECT_TRUE(GpusOf(Parsed({"--gpus=none"}).flags).empty());
  EXPECT_EQ(Parsed({}).flags.gpus, "auto");
}

TEST(GpuPool, GivesEachGpuToOneAtATimeAndAGangAllOrNone) {
  GpuPool pool({"a", "b", "c"});
  EXPECT_EQ(*pool.Take(1), std::vector<GpuId>{"a"});
  EXPECT_EQ(*pool.Take(1), std::vector<GpuId>{"b"});
  const Status refused = pool.Take(2).status();
  EXPECT_EQ(refused.code(), Code::kResourceExhausted);
  EXPECT_NE(refused.message().find("needs 2 GPUs, one per rank; 1 of this worker's 3"),
            std::string::npos)
      << refused.message();
  pool.Return({"a"});
  EXPECT_EQ(*pool.Take(2), (std::vector<GpuId>{"a", "c"})) << "c was not taken by the refusal";
  EXPECT_FALSE(pool.Take(1).ok());
}

TEST(ExitCause, APeersLossIsNotTheCauseWhenOneKnowsBetter) {
  GangEnd end{.exit = {.code = 12},
              .said_hello = true,
              .fatal_kind = {},
              .fatal_text = {},
              .last_lines = "x"};
  EXPECT_EQ(CauseOf(end).cause, "COLLECTIVE_ERROR");
  end.fatal_kind = "OOM";
  end.fatal_text = "rank 1: out of memory";
  EXPECT_EQ(CauseOf(end).cause, "OOM");
  EXPECT_NE(CauseOf(end).detail.find("rank 1: out of memory"), std::string::npos);
  end.fatal_kind = "BUG";
  EXPECT_EQ(CauseOf(end).cause, "RANK_EXIT");
}

TEST(PlanBuilder, SaysWhatTheSpecSaysAndFillsWhatOnlyTheWorkerKnows) {
  v1::JobSpec spec = SmallSpec(2);
  const PlanContext context = {.job_uid = "u",
                               .job_name = "n",
                               .epoch = 4,
                               .job_folder = "/j",
                               .attempt_folder = "/j/attempts/4",
                               .socket = "/s",
                               .tokens = "/t",
                               .resume_from = "",
                               .export_classes = "/c",
                               .stage_cache = "",
                               .threads_per_slot = 3};
  const auto plan = BuildPlan(spec, context);
  ASSERT_TRUE(plan.ok()) << plan.status().ToString();
  EXPECT_EQ(plan->attention.feature_dim, 64) << "the model's head_dim";
  EXPECT_EQ(plan->threads_per_rank, 3);
  EXPECT_EQ(plan->ranks, 2);
  ASSERT_EQ(plan->stages.size(), 1u);
  EXPECT_EQ(plan->stages[0].steps, 10);
  EXPECT_EQ(plan->spec_sha256.size(), 64u);
  spec.mutable_stages(0)->mutable_attention_transfer()->set_batch_size(3);
  spec.mutable_export_()->set_dtype("int3");
  const auto bad = BuildPlan(spec, context);
  ASSERT_FALSE(bad.ok());
  EXPECT_NE(bad.status().message().find("multiple of ranks"), std::string::npos);
  EXPECT_NE(bad.status().message().find("export_dtype"), std::string::npos);
}

PlanContext SomeContext() {
  PlanContext context;
  context.job_uid = "u";
  context.job_name = "n";
  context.epoch = 1;
  context.job_folder = "/j";
  context.attempt_folder = "/j/attempts/1";
  context.tokens = "/t";
  return context;
}

TEST(PlanBuilder, RetainedLayersBecomeGroupsOfTheModel) {
  v1::JobSpec spec = SmallSpec();
  auto& retain = *spec.mutable_attention()->mutable_retain();
  for (const char* text : {"1", "0.1", "1.0"}) retain.add_kv_groups(text);
  const PlanContext context = SomeContext();
  const auto plan = BuildPlan(spec, context);
  ASSERT_TRUE(plan.ok()) << plan.status().ToString();
  std::string groups;
  for (const auto& [layer, group] : plan->attention.retained) {
    groups += std::to_string(layer) + "." + std::to_string(group) + " ";
  }
  EXPECT_EQ(groups.substr(0, 12), "0.1 1.0 1.1 ") << "each once, in order";
  retain.add_kv_groups("99");
  EXPECT_NE(BuildPlan(spec, context).status().message().find("holds \"99\"; the model has"),
            std::string::npos);
}

// A converted model brings its own form; what counts in use alone may be changed.
TEST(PlanBuilder, DiagnoseTakesTheConversionsForm) {
  const std::string folder = TemporaryFolder();
  ASSERT_TRUE(WriteFileDurably(folder + "/config.json", R"({"model_type": "hybrid_linear",
      "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 3, "head_dim": 16,
      "hybrid": {"version": 1, "mode": "linear_only", "window": {"kind": "terraced", "size": 24},
                 "feature_map": {"kind": "relu", "dim": 8}, "mixing": {"factor": "exp"},
                 "retain": {"kv_groups": [[2, 1]]}}})")
                  .ok());
  v1::JobSpec spec = SmallSpec();
  spec.clear_stages();
  spec.set_recipe("diagnose");
  spec.mutable_model()->set_path(folder);
  spec.mutable_model()->set_base("/base");
  spec.mutable_attention()->mutable_mixing()->set_window_gain(10);
  const auto plan = BuildPlan(spec, SomeContext());
  ASSERT_TRUE(plan.ok()) << plan.status().ToString();
  EXPECT_TRUE(plan->stages.empty());
  EXPECT_EQ(plan->converted, folder);
  EXPECT_EQ(plan->model, "/base");
  EXPECT_EQ(plan->served_mode, "linear_only");
  EXPECT_EQ(plan->attention.window_kind, "terraced");
  EXPECT_EQ(plan->attention.window_size, 24);
  EXPECT_EQ(plan->attention.window_sinks, 0) << "absent: as old exports were made";
  EXPECT_EQ(plan->attention.feature_dim, 8);
  EXPECT_FALSE(plan->attention.feature_map_two_sided) << "absent: as relu is by default";
  EXPECT_TRUE(plan->attention.feature_map_bias);
  EXPECT_EQ(plan->attention.window_gain, 10);
  ASSERT_EQ(plan->attention.retained.size(), 1u);
  EXPECT_EQ(plan->attention.retained[0].layer, 2);
}

TEST(PlanBuilder, PrepareRequestHasAPasskeyOnlyWhenItIsAskedFor) {
  v1::JobSpec spec = SmallSpec();
  spec.mutable_evaluate()->mutable_passkey()->set_prompts(2);
  spec.mutable_evaluate()->mutable_passkey()->set_length(0);
  auto request = nlohmann::json::parse(PrepareRequest(spec, "/cache"));
  EXPECT_EQ(request["passkey"]["length"], 128) << "0 means the sequence length";
  EXPECT_EQ(request["train"].size(), 1u);
  EXPECT_EQ(request["cache"], "/cache");
  spec.mutable_evaluate()->mutable_passkey()->set_prompts(0);
  EXPECT_FALSE(nlohmann::json::parse(PrepareRequest(spec, "/cache")).contains("passkey"));
}

TEST(Outbox, SurvivesUntilAcknowledged) {
  const std::string folder = TemporaryFolder() + "/outbox";
  v1::AttemptStatus ended;
  ended.mutable_attempt()->set_job_uid("u");
  ended.mutable_attempt()->set_epoch(3);
  ended.set_cause("OK");
  {
    auto outbox = Outbox::Open(folder);
    ASSERT_TRUE(outbox.ok());
    ASSERT_TRUE(outbox->Put(ended).ok());
  }
  ASSERT_TRUE(WriteFileDurably(folder + "/torn-1.pb", "\xff\xff").ok());
  auto outbox = Outbox::Open(folder);
  ASSERT_TRUE(outbox.ok()) << outbox.status().ToString();
  ASSERT_EQ(outbox->pending().size(), 1u);
  EXPECT_EQ(outbox->pending().begin()->second.cause(), "OK");
  EXPECT_TRUE(PathExists(folder + "/torn-1.pb.bad"));
  outbox->Acknowledge("u", 3);
  outbox->Acknowledge("u", 3);
  EXPECT_TRUE(Outbox::Open(folder)->pending().empty());
}

TEST(LogReader, PagesTailsAndRefuses) {
  const std::string jobs = TemporaryFolder();
  for (const char* epoch : {"1", "2", "10"}) {
    ASSERT_TRUE(MakeFolders(jobs + "/u/attempts/" + epoch).ok());
  }
  const std::string file = jobs + "/u/attempts/10/rank-0.out";
  ASSERT_TRUE(WriteFileDurably(file, std::string(kMaxChunkBytes, 'a') + "end").ok());
  ASSERT_TRUE(WriteFileDurably(jobs + "/u/attempts/10/plan.json", "{}").ok());
  v1::ReadLogs request;
  request.set_job_uid("u");
  v1::LogChunk chunk = ReadChunk(jobs, request);
  EXPECT_EQ(chunk.error(), "");
  ASSERT_EQ(chunk.files_size(), 1) << "of the newest epoch, by number";
  request.set_file("rank-0.out");
  chunk = ReadChunk(jobs, request);
  EXPECT_EQ(static_cast<int64_t>(chunk.data().size()), kMaxChunkBytes);
  EXPECT_FALSE(chunk.end_of_file());
  request.set_offset(chunk.next_offset());
  chunk = ReadChunk(jobs, request);
  EXPECT_EQ(chunk.data(), "end");
  EXPECT_TRUE(chunk.end_of_file());
  request.set_offset(0);
  request.set_tail_bytes(2);
  EXPECT_EQ(ReadChunk(jobs, request).data(), "nd");
  for (const char* name : {"plan.json", "../10/rank-0.out", ".out", "none.out"}) {
    request.set_file(name);
    EXPECT_NE(ReadChunk(jobs, request).error(), "") << name;
  }
  for (const char* uid : {"", "..", "none", "a/b"}) {
    request.set_job_uid(uid);
    EXPECT_NE(ReadChunk(jobs, request).error(), "") << uid;
  }
}

// Bytes that the file occupies on the disk.
int64_t Occupied(const std::string& path) {
  struct stat info {};
  return stat(path.c_str(), &info) == 0 ? info.st_blocks * 512 : -1;
}

TEST(LogBound, KeepsTheEndAndItsOffsetsAndReadersSkipTheRest) {
  const std::string jobs = TemporaryFolder();
  const std::string attempt = jobs + "/u/attempts/1";
  ASSERT_TRUE(MakeFolders(attempt).ok());
  std::string text;
  for (int i = 0; i < 40'000; ++i) text += "line " + std::to_string(i) + "\n";
  constexpr int64_t kKept = 64 * 1024;
  const auto size = static_cast<int64_t>(text.size());
  ASSERT_GT(size, 4 * kKept);
  for (const char* name : {"rank-0.err", "plan.json"}) {
    ASSERT_TRUE(WriteFileDurably(attempt + "/" + name, text).ok());
  }
  ASSERT_TRUE(BoundLogs(attempt, kKept).ok()) << "the test's file system has no holes";
  EXPECT_LE(Occupied(attempt + "/rank-0.err"), kKept + kKept / 4);
  EXPECT_GE(Occupied(attempt + "/plan.json"), size) << "no log";
  v1::ReadLogs request;
  request.set_job_uid("u");
  request.set_epoch(1);
  request.set_file("rank-0.err");
  v1::LogChunk chunk = ReadChunk(jobs, request);
  const std::string note = chunk.data().substr(0, chunk.data().find('\n') + 1);
  EXPECT_TRUE(note.ends_with(" bytes of this log are not kept)\n")) << note;
  const std::string rest = chunk.data().substr(note.size());
  EXPECT_GE(static_cast<int64_t>(rest.size()), kKept);
  EXPECT_TRUE(text.ends_with(rest)) << "not a byte of the hole";
  EXPECT_EQ(chunk.next_offset(), size);
  EXPECT_TRUE(chunk.end_of_file());
  request.set_offset(size - 100);  // a follower's
  EXPECT_EQ(ReadChunk(jobs, request).data(), text.substr(text.size() - 100));
}

TEST(AttemptFiles, LinesOfPrepareAreReadWithoutTrust) {
  EXPECT_EQ(ParsePrepareLine(R"({"event":"result","tokens":"/t"})").tokens_folder, "/t");
  EXPECT_EQ(ParsePrepareLine(R"({"event":"progress","documents":5})").documents, 5);
  EXPECT_EQ(ParsePrepareLine(R"({"event":"error","field":"f","message":"m"})").error, "f: m");
  for (const char* line : {"", "x", "[]", "3", R"({"event":7,"documents":"many","tokens":[]})"}) {
    const PrepareLine said = ParsePrepareLine(line);
    EXPECT_TRUE(said.tokens_folder.empty() && said.error.empty() && said.documents == 0) << line;
  }
}

TEST(LocalLauncher, PassesOnlyTheNamesItMeans) {
  setenv("TANDEM_SECRET_OF_THE_SHELL", "x", 1);
  const LaunchPlan plan = {.plan_path = "/p",
                           .attempt_folder = "/a",
                           .scratch_folder = "/s",
                           .mark = "M=1",
                           .gpus = {"2", "0"},
                           .ranks = 2,
                           .threads_per_rank = 3};
  std::string all;
  for (const auto& entry : MpirunEnvironment(plan)) all += entry + "\n";
  EXPECT_NE(all.find("OMP_NUM_THREADS=3\n"), std::string::npos);
  EXPECT_NE(all.find("MKL_DYNAMIC=FALSE\n"), std::string::npos);
  EXPECT_NE(all.find("CUDA_VISIBLE_DEVICES=2,0\n"), std::string::npos);
  EXPECT_EQ(all.find("SECRET"), std::string::npos);
  EXPECT_EQ(MpirunArguments(plan, "/r")[0], "mpirun")
      << "by name: a path means a prefix to Open MPI";
}

}  // namespace
}  // namespace tandem::agent
