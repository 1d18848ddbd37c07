// The comparison: what is drawn from reports and specs, as data and as text.
#include "cli/comparison.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>

#include "base/files.h"
#include "cli/comparison_text.h"

namespace tandem::cli {
namespace {

using nlohmann::json;

json Component(double loss, double recovered) {
  return {
      {"loss", loss}, {"perplexity", 2 * loss}, {"standard_error", 0.01}, {"recovered", recovered}};
}

ComparedJob Old() {
  ComparedJob job{"lolcats", "aaaa1111", {}, {}, "/w/jobs/a/report.html"};
  job.report = {{"version", 1},
                {"verdict", "collapsed"},
                {"components",
                 {{"softmax", Component(2.9627, 1)},
                  {"hybrid", Component(3.0434, 0.97)},
                  {"window_only", Component(3.0831, 0.96)},
                  {"linear_only", Component(5.0687, 0.31)}}},
                {"passkey",
                 {{{"distance", 16}, {"accuracy", {{"softmax", 1}, {"hybrid", 0.97}}}},
                  {{"distance", 384}, {"accuracy", {{"softmax", 1}, {"hybrid", 0.0}}}}}}};
  job.spec = {{"name", "lolcats"},
              {"recipe", "lolcats"},
              {"attention", {{"window", {{"size", 64}}}}},
              {"stages",
               {{{"attention_transfer", {{"objective", "hybrid_outputs"}, {"steps", 300}}}},
                {{"finetune", {{"mode", "hybrid"}, {"steps", 400}}}}}}};
  job.report["suites"] = {{{"name", "piqa"}, {"scores", {{"softmax", {{"value", 0.8}}}}}}};
  job.report["suites_average"] = {{"softmax", 0.8}};
  return job;
}

ComparedJob New() {
  ComparedJob job = Old();
  job.name = "linear";
  job.uid = "bbbb2222";
  job.report["verdict"] = "balanced";
  job.report["recipe"] = "linear";
  job.report["served_mode"] = "linear_only";
  job.report["components"]["linear_only"] = Component(3.265, 0.84);
  job.report["beats_window"] = {{"value", false}, {"words", "worse than the plain window"}};
  job.report["recall"] = {{"value", 0.125}, {"words", "…"}};
  job.report["cost"] = {{"tokens", 614400}, {"seconds", 151.4}, {"peak_memory_bytes", 1.5e9}};
  job.report["suites"] = {
      {{"name", "piqa"},
       {"metric", "acc"},
       {"items", 100},
       {"scores", {{"softmax", {{"value", 0.8}}}, {"linear_only", {{"value", 0.75}}}}}}};
  job.report["suites_average"] = {{"softmax", 0.8}, {"linear_only", 0.75}};
  job.report["long_range"] = {
      {{"kind", "recall"}, {"facts", 8}, {"accuracy", {{"linear_only", 0.25}}}},
      {{"kind", "passkey"}, {"distance", 16}, {"accuracy", {{"linear_only", 0}}}}};
  job.spec["recipe"] = "linear";
  job.spec["name"] = "linear";
  job.spec["stages"] = {{{"attention_transfer", {{"objective", "weights"}, {"steps", 300}}}},
                        {{"finetune", {{"mode", "linear_only"}, {"steps", 400}}}}};
  return job;
}

TEST(ComparisonJson, TakesWhatReportsHaveAndNullForTheRest) {
  const json comparison = ComparisonJson({Old(), New()});
  EXPECT_EQ(comparison["version"], 1);
  const json& old = comparison["jobs"][0];
  EXPECT_EQ(old["recipe"], "lolcats") << "of the spec, where the report does not say";
  EXPECT_EQ(old["served_mode"], "hybrid");
  EXPECT_TRUE(old["lengths"].is_null() && old["cost"].is_null() && old["recall"].is_null());
  EXPECT_EQ(comparison["jobs"][1]["served_mode"], "linear_only");
  EXPECT_EQ(comparison["jobs"][1]["beats_window"]["value"], false);
  EXPECT_TRUE(comparison["paired"].is_null()) << "no losses by sequence";
}

TEST(ComparisonJson, OnlyFieldsThatDifferAreListed) {
  const json differences = ComparisonJson({Old(), New()})["differences"];
  std::vector<std::string> fields;
  for (const auto& difference : differences) fields.push_back(difference["field"]);
  EXPECT_EQ(fields,
            (std::vector<std::string>{"attention_transfer.objective", "finetune.mode", "recipe"}));
  EXPECT_EQ(differences[1]["values"], json::parse(R"([{"value": "hybrid", "jobs": ["lolcats"]},
                            {"value": "linear_only", "jobs": ["linear"]}])"));
  ComparedJob short_job = New();
  short_job.spec["stages"].erase(0);
  const json with_absent = ComparisonJson({Old(), short_job})["differences"];
  std::string names;
  for (const auto& difference : with_absent) names += difference["field"].get<std::string>() + " ";
  EXPECT_EQ(names, "finetune.mode recipe stages ") << "not every field of the stage that is absent";
}

TEST(ComparisonJson, PairsTheServedLossesOfTheSameText) {
  ComparedJob a = Old(), b = New();
  a.report["per_sequence"] = {{"hybrid", {3.0, 3.2, 3.1}}};
  b.report["per_sequence"] = {{"hybrid", {0, 0, 0}}, {"linear_only", {3.2, 3.5, 3.3}}};
  a.report["validation_sha256"] = b.report["validation_sha256"] = "d1";
  const json paired = ComparisonJson({b, a})["paired"];
  EXPECT_EQ(paired["best"], "lolcats");
  EXPECT_NEAR(paired["rows"][0]["difference"].get<double>(), 0.7 / 3, 1e-12);
  // Differences 0.2, 0.3, 0.2: standard error 1 / 30.
  EXPECT_NEAR(paired["rows"][0]["high"].get<double>(), 0.7 / 3 + 1.96 / 30, 1e-12);
  EXPECT_EQ(paired["rows"][1]["difference"], 0.0);
  // The second sequence has nearly all labels.
  a.report["targets_per_sequence"] = b.report["targets_per_sequence"] = {1, 98, 1};
  const json by_tokens = ComparisonJson({b, a})["paired"]["rows"][0];
  EXPECT_NEAR(by_tokens["difference"].get<double>(), (0.2 + 98 * 0.3 + 0.2) / 100, 1e-12);
  b.report["validation_sha256"] = "d2";
  EXPECT_TRUE(ComparisonJson({b, a})["paired"].is_null()) << "other text cannot be paired";
}

TEST(ComparisonText, FitsAHundredColumns) {
  const std::string text = ComparisonText(ComparisonJson({Old(), New()}), TextStyle{});
  EXPECT_EQ(text,
            R"(RUN       VERDICT     HYBRID    %   WINDOW    %   LINEAR    %  SUITES  BEATS  RECALL
the base  -          2.9627   100                                80.0
lolcats   collapsed  3.0434*   97  3.0831    96  5.0687    31       -  -           -
linear    balanced   3.0434    97  3.0831    96  3.2650*   84    75.0  no         12
Losses in nats per token on held-out text; * is the mode that is served.
%: what the mode recovers of attention's worth (100 the base, 0 no context).
SUITES: mean accuracy of the served mode.
BEATS: as served, better than a window alone, untrained and trained.
RECALL: beyond the stacked windows, in % of the base's.

Recall as served, % of the prompts (@ tokens back, : facts or pairs):
RUN       passkey@16  passkey@384  recall:8
the base         100          100         -
lolcats           97            0         -
linear             -            -        25

Suites, % right (perplexities as they are):
RUN       MODE           piqa
the base  softmax        80.0
linear    linear_only    75.0

Training cost:
RUN         TIME        TOKENS  PEAK MEMORY
lolcats        -             -            -
linear      2:31       614,400       1.5 GB

What differs in their specs:
FIELD                         VALUE           RUNS
attention_transfer.objective  hybrid_outputs  lolcats
                              weights         linear
finetune.mode                 hybrid          lolcats
                              linear_only     linear
recipe                        lolcats         lolcats
                              linear          linear
)");
}

TEST(ComparisonText, NarrowTerminalsGetLinesPerJob) {
  TextStyle style;
  style.width = 60;
  const std::string text = ComparisonText(ComparisonJson({Old(), New()}), style);
  EXPECT_EQ(text.substr(0, text.find("Losses")), R"(the base: loss 2.9627
lolcats: collapsed
  hybrid       3.0434*   97 %
  window_only  3.0831    96 %
  linear_only  5.0687    31 %
  beats window: -
linear: balanced
  hybrid       3.0434    97 %
  window_only  3.0831    96 %
  linear_only  3.2650*   84 %
  beats window: no, recall 12 %
)");
  for (size_t start = 0, end = 0; (end = text.find('\n', start)) != std::string::npos;
       start = end + 1)
    EXPECT_LE(end - start, 80u) << text.substr(start, end - start);
}

TEST(ComparisonText, OtherBasesAreSaid) {
  ComparedJob other = New();
  other.report["components"]["softmax"]["loss"] = 2.5;
  const std::string text = ComparisonText(ComparisonJson({Old(), other}), TextStyle{});
  EXPECT_NE(text.find("Note: the jobs have other base models"), std::string::npos) << text;
  EXPECT_EQ(text.find("the base "), std::string::npos) << "there is no one base";
}

TEST(ComparisonText, AControlIsNotJudged) {
  ComparedJob control = Old();
  control.report["recipe"] = "window_control";
  const std::string text = ComparisonText(ComparisonJson({control}), TextStyle{});
  EXPECT_NE(text.find("lolcats   control "), std::string::npos) << text;
}

TEST(ComparisonCsv, ALinePerJobAndMode) {
  const std::string csv = ComparisonCsv(ComparisonJson({Old(), New()}));
  EXPECT_TRUE(csv.starts_with(
      "job,recipe,verdict,mode,served,loss,perplexity,standard_error,recovered,passkey@16,"
      "passkey@384,recall:8,piqa\n"
      "lolcats,lolcats,collapsed,softmax,0,2.9627,5.9254,0.01,1.0,1,1,,0.8\n"
      "lolcats,lolcats,collapsed,hybrid,1,3.0434,"))
      << csv;
  EXPECT_NE(csv.find("linear,linear,balanced,linear_only,1,3.265,6.53,0.01,0.84,,,0.25,0.75\n"),
            std::string::npos)
      << csv;
}

TEST(ReadJobs, FindsReportsAndSpecsInAWorkFolder) {
  std::string work = testing::TempDir() + "compare-XXXXXX";
  ASSERT_NE(mkdtemp(work.data()), nullptr);
  const auto write = [&](const std::string& uid, const std::string& name) {
    const std::string job = work + "/jobs/" + uid;
    ASSERT_TRUE(MakeFolders(job + "/artifacts").ok() && MakeFolders(job + "/attempts/9").ok() &&
                MakeFolders(job + "/attempts/10").ok());
    json report = Old().report;
    report["job"] = name;
    report["uid"] = uid;
    ASSERT_TRUE(WriteFileDurably(job + "/artifacts/report.json", report.dump()).ok());
    ASSERT_TRUE(WriteFileDurably(job + "/attempts/9/plan.json", "{}").ok());
    const json plan = {{"spec_json", R"({"recipe": "ssd"})"}};
    ASSERT_TRUE(WriteFileDurably(job + "/attempts/10/plan.json", plan.dump()).ok());
  };
  write("u1aaaaaaa", "twice");
  write("u2bbbbbbb", "projects/default/jobs/twice");
  auto jobs = ReadJobs(work);
  ASSERT_TRUE(jobs.ok()) << jobs.status().message();
  ASSERT_EQ(jobs->size(), 2u);
  EXPECT_EQ((*jobs)[0].spec["recipe"], "ssd") << "of attempt 10, not 9";
  MakeNamesUnique(*jobs);
  EXPECT_EQ((*jobs)[0].name, "twice-u1aaaa");
  EXPECT_EQ((*jobs)[1].name, "twice-u2bbbb");
  EXPECT_EQ(ReadJobs(work + "/jobs/u1aaaaaaa")->size(), 1u);
  EXPECT_EQ(ReadJobs(work + "/jobs/u1aaaaaaa/artifacts/report.json")->size(), 1u);
  EXPECT_EQ(ReadJobs(work + "/jobs/u1aaaaaaa/attempts").status().code(), Code::kNotFound);
  EXPECT_TRUE(RemoveTree(work).ok());
}

}  // namespace
}  // namespace tandem::cli
