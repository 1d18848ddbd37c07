// The command line as a whole: exit codes and messages of what needs no coordinator, or finds none.
#include "cli/command_line.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include "base/files.h"
#include "cli/exit_code.h"
#include "cli/job_file.h"
#include "cli/verbs/verbs.h"

namespace tandem::cli {
namespace {

struct Outcome {
  int code;
  std::string out;
  std::string err;
};

Outcome Tandem(const std::vector<std::string>& arguments) {
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  Interrupts interrupts;
  std::vector<std::string> words = {"tandem"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  const int code = RunCommandLine(words, interrupts);
  std::string out = testing::internal::GetCapturedStdout();
  return {code, std::move(out), testing::internal::GetCapturedStderr()};
}

std::string Example(const std::string& name) {
  return std::string(TANDEM_SOURCE_DIR) + "/examples/" + name;
}

TEST(CommandLine, AMistypedVerbGetsTheNearest) {
  const auto outcome = Tandem({"sumbit", "job.yaml"});
  EXPECT_EQ(outcome.code, kExitUsage);
  EXPECT_EQ(outcome.err, "tandem: sumbit is not a verb of tandem; did you mean submit?\n");
  EXPECT_EQ(Tandem({"--server", "h:1", "frobnicate"}).code, kExitUsage);
}

TEST(CommandLine, WrongFlagsSayWhereHelpIs) {
  EXPECT_EQ(Tandem({}).code, kExitUsage);
  const auto outcome = Tandem({"list", "--sate", "RUNNING"});
  EXPECT_EQ(outcome.code, kExitUsage);
  EXPECT_NE(outcome.err.find("see `tandem list --help`"), std::string::npos) << outcome.err;
  EXPECT_EQ(Tandem({"list", "-o", "xml"}).code, kExitUsage);
  EXPECT_EQ(Tandem({"watch", "j", "--require-verdict", "collapsed"}).code, kExitUsage);
  EXPECT_EQ(Tandem({"run", "job.yaml", "--threads", "0"}).code, kExitUsage);
  EXPECT_EQ(Tandem({"workers", "drain"}).code, kExitUsage);
  EXPECT_EQ(Tandem({"workers", "drian", "x"}).code, kExitUsage);
}

TEST(CommandLine, TheVersionIsAskedInBothWays) {
  const auto verb = Tandem({"version"});
  const auto flag = Tandem({"--version"});
  EXPECT_EQ(flag.code, kExitOk) << flag.err;
  EXPECT_TRUE(flag.out.starts_with("tandem ")) << flag.out;
  EXPECT_EQ(flag.out, verb.out);
}

TEST(CommandLine, ASweepFileIsNotTakenForAJobFile) {
  for (const char* verb : {"validate", "run"}) {
    const auto outcome = Tandem({verb, Example("recipes.yaml")});
    EXPECT_EQ(outcome.code, kExitUsage);
    EXPECT_EQ(outcome.err, "tandem: " + Example("recipes.yaml") +
                               " is a sweep file; `tandem sweep " + Example("recipes.yaml") +
                               "` runs it\n");
  }
}

// A sweep found it out when all its runs were made.
TEST(CommandLine, APageThatCannotBeWrittenIsRefusedAtOnce) {
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{"sweep", Example("recipes.yaml")},
                                             {"compare", "work"},
                                             {"report", "job", "--server", "127.0.0.1:1"}}) {
    auto words = arguments;
    words.insert(words.end(), {"--html", "/nowhere/page.html"});
    const auto outcome = Tandem(words);
    EXPECT_EQ(outcome.code, kExitUsage) << arguments[0];
    EXPECT_NE(outcome.err.find("the folder /nowhere does not exist"), std::string::npos)
        << outcome.err;
    words.back() = testing::TempDir();
    EXPECT_NE(Tandem(words).err.find("is no file to write to"), std::string::npos);
  }
}

TEST(CommandLine, HelpIsData) {
  const auto outcome = Tandem({"submit", "--help"});
  EXPECT_EQ(outcome.code, kExitOk);
  EXPECT_NE(outcome.out.find("--watch"), std::string::npos);
  EXPECT_EQ(outcome.err, "");
}

TEST(CommandLine, NobodyAtTheAddressIsFive) {
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{"list"},
                                             {"get", "x"},
                                             {"watch", "x"},
                                             {"logs", "x"},
                                             {"cancel", "x"},
                                             {"report", "x"},
                                             {"workers"},
                                             {"workers", "drain", "x"},
                                             {"workers", "undrain", "x"}}) {
    auto words = arguments;
    words.insert(words.end(), {"--server", "127.0.0.1:1"});
    const auto outcome = Tandem(words);
    EXPECT_EQ(outcome.code, kExitUnreachable) << arguments[0];
    EXPECT_NE(outcome.err.find("cannot reach a coordinator at 127.0.0.1:1"), std::string::npos)
        << outcome.err;
    EXPECT_EQ(outcome.out, "") << arguments[0];
  }
}

TEST(Validate, TellsFileLineAndFault) {
  std::string pattern = testing::TempDir() + "validate-XXXXXX";
  ASSERT_NE(mkdtemp(pattern.data()), nullptr);
  const std::string file = pattern + "/job.yaml";
  ASSERT_TRUE(
      WriteFileDurably(
          file, "model:\n  path: none\ndata:\n  train: [a.txt]\nrecipe: ssd\nsed: 1\nseed: x\n")
          .ok());
  auto outcome = Tandem({"validate", file});
  EXPECT_EQ(outcome.code, kExitUsage);
  EXPECT_EQ(outcome.err, file + ":6: sed is not a field; did you mean seed?\n" + file +
                             ":7: seed is \"x\"; must be an integer\n");
  ASSERT_TRUE(
      WriteFileDurably(file, "model:\n  path: none\ndata:\n  train: [a.txt]\nrecipe: ssd\n").ok());
  outcome = Tandem({"validate", file});
  EXPECT_EQ(outcome.code, kExitUsage);
  EXPECT_NE(outcome.err.find(file + ":2: model.path: " + pattern + "/none does not exist"),
            std::string::npos)
      << outcome.err;
  EXPECT_NE(outcome.err.find(file + ":4: data.train[0]: "), std::string::npos) << outcome.err;
  EXPECT_EQ(Tandem({"validate", file, "--ignore-files"}).code, kExitOk);
  EXPECT_EQ(Tandem({"run", file, "--work", pattern + "/work"}).code, kExitUsage);
  EXPECT_FALSE(PathExists(pattern + "/work")) << "a refused job leaves nothing behind";
  EXPECT_TRUE(RemoveTree(pattern).ok());
}

TEST(Validate, PrintsTheResolvedJob) {
  const auto outcome = Tandem({"validate", Example("ssd.yaml"), "-o", "yaml"});
  EXPECT_EQ(outcome.code, kExitOk) << outcome.err;
  EXPECT_NE(outcome.out.find("granularity: micro_batch"), std::string::npos);
  const auto json =
      nlohmann::json::parse(Tandem({"validate", Example("lolcats.yaml"), "-o", "json"}).out);
  EXPECT_EQ(json["stages"][0]["attention_transfer"]["objective"], "hybrid_outputs");
}

// Its model and data are the reader's: only the file itself can be checked here.
TEST(Validate, TheExampleOfARealModelIsValid) {
  const auto outcome =
      Tandem({"validate", Example("llama-8b.yaml"), "--ignore-files", "-o", "json"});
  ASSERT_EQ(outcome.code, kExitOk) << outcome.err;
  const auto json = nlohmann::json::parse(outcome.out);
  EXPECT_EQ(json["parallelism"]["device"], "cuda");
  EXPECT_EQ(json["data"]["train"].size(), json["data"]["weights"].size());
  EXPECT_EQ(json["evaluate"]["suites"].size(), 4u);
  const auto missing = Tandem({"validate", Example("llama-8b.yaml")});
  EXPECT_EQ(missing.code, kExitUsage);
  for (const char* field : {"model.path", "data.train[2]", "evaluate.suites[3]"}) {
    EXPECT_NE(missing.err.find(field), std::string::npos) << field << "\n" << missing.err;
  }
}

TEST(Explain, FieldsAsTextAndData) {
  EXPECT_NE(Tandem({"explain", "finetune.steps"}).out.find("20M tokens' worth"), std::string::npos);
  const auto json = nlohmann::json::parse(Tandem({"explain", "finetune.lora", "-o", "json"}).out);
  EXPECT_EQ(json["fields"].size(), 4u);
  const auto unknown = Tandem({"explain", "finetune.stepz"});
  EXPECT_EQ(unknown.code, kExitNotFound);
  EXPECT_NE(unknown.err.find("did you mean finetune.steps?"), std::string::npos);
}

// In a cluster the job waits for a machine with GPUs; here it would wait for ever.
TEST(JobFile, WhatThisMachineLacksForTheJobIsSaidBeforeItRuns) {
  const ParsedSpec two = ReadSpec("name: a\nparallelism:\n  device: cuda\n  data: 2\n", "/").parsed;
  EXPECT_TRUE(FaultsOfGpus(two, 2).empty());
  const auto none = FaultsOfGpus(two, 0);
  ASSERT_EQ(none.size(), 1u);
  EXPECT_EQ(none[0].line, 3);
  EXPECT_NE(none[0].message.find("no GPU that may be used"), std::string::npos);
  const auto few = FaultsOfGpus(two, 1);
  ASSERT_EQ(few.size(), 1u);
  EXPECT_EQ(few[0].line, 4);
  EXPECT_NE(few[0].message.find("this machine has 1"), std::string::npos);
}

TEST(JobFile, CoordinatorFaultsGetTheFilesLines) {
  ParsedSpec parsed;
  parsed.lines = {{"model", 1}, {"model.path", 2}};
  const auto faults = FaultsOfMessage("model.path: /m does not exist\nseed is bad", parsed);
  EXPECT_EQ(FaultLines("job.yaml", faults),
            "job.yaml:2: model.path: /m does not exist\njob.yaml: seed is bad\n");
}

TEST(ShellWords, CanBePastedBack) {
  EXPECT_EQ(ShellWords({"tandem", "run", "my job.yaml", "--work", "/w"}),
            "tandem run 'my job.yaml' --work /w");
  EXPECT_EQ(ShellWords({"it's"}), "'it'\\''s'");
}

}  // namespace
}  // namespace tandem::cli
