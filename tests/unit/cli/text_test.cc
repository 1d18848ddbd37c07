// What people and scripts read: fixed input, exact text.
#include <gtest/gtest.h>

#include <cmath>

#include "cli/component_text.h"
#include "cli/job_text.h"
#include "cli/outcome.h"
#include "cli/output.h"
#include "cli/plan_text.h"
#include "cli/progress.h"

namespace tandem::cli {
namespace {

constexpr int64_t kNowMs = 1'700'000'100'000;

v1::Job RunningJob() {
  v1::Job job;
  job.set_name("projects/default/jobs/ssd");
  job.set_state(v1::JOB_STATE_RUNNING);
  job.set_epoch(1);
  job.set_worker("local");
  job.mutable_spec()->set_recipe("ssd");
  job.mutable_start_time()->set_seconds(kNowMs / 1000 - 75);
  auto& progress = *job.mutable_progress();
  progress.set_stage("finetune");
  progress.set_stage_index(2);
  progress.set_stage_count(5);
  progress.set_step(130);
  progress.set_steps(260);
  progress.set_loss(3.4123456);
  progress.set_tokens_per_second(4277.4);
  progress.set_eta_seconds(42);
  return job;
}

v1::Job EndedJob() {
  v1::Job job = RunningJob();
  job.set_state(v1::JOB_STATE_SUCCEEDED);
  job.set_artifact("/w/jobs/u/artifacts/model");
  job.set_report_path("/w/jobs/u/report.html");
  auto& report = *job.mutable_report();
  report.set_verdict("balanced");
  report.set_verdict_reason("the linear branch alone recovers 79 %");
  report.set_linear_delta(0.0441);
  report.set_linear_delta_low(0.0401);
  report.set_linear_delta_high(0.0482);
  report.set_beyond_window(0.4);
  const auto add = [&](const char* mode, double loss, double recovered) {
    auto& result = (*report.mutable_components())[mode];
    result.set_loss(loss);
    result.set_perplexity(std::exp(loss));
    if (!std::isnan(recovered)) result.set_recovered(recovered);
  };
  add("softmax", 3.0, 1);
  add("hybrid", 3.1, 0.97);
  add("window_only", 3.1441, 0.95);
  add("linear_only", 3.6, 0.79);
  add("sinks_only", 6, 0);
  add("none", 7.4, std::nan(""));
  auto& passkey = *report.add_passkey();
  passkey.set_distance(128);
  (*passkey.mutable_accuracy())["softmax"] = 1;
  (*passkey.mutable_accuracy())["hybrid"] = 0.5;
  return job;
}

TEST(ComponentTable, ANewcomerCanReadIt) {
  EXPECT_EQ(ComponentTable(EndedJob().report(), 8, TextStyle{}),
            R"(MODE         WHAT IS ON                         LOSS  PERPLEXITY  RECOVERED
softmax      the base model's own attention   3.0000       20.09   100 %  ####################
hybrid       both branches: the result        3.1000       22.20    97 %  ###################.
window_only  the window alone                 3.1441       23.20    95 %  ###################.
linear_only  the linear branch alone          3.6000       36.60    79 %  ################....
sinks_only   the first 8 tokens alone         6.0000      403.43     0 %  ....................
none         no attention at all              7.4000     1635.98       -
Recovered: 0 % reads the first tokens alone (sinks_only), 100 % is the base model's attention (softmax).

Verdict: balanced - both components pull.
  the linear branch alone recovers 79 %
  What the linear branch adds to the window: 0.0441 nats per token (95 %: 0.0401 to 0.0482), 40 % of what lies beyond the window.

Passkey: how often a number is repeated that was read so many tokens ago.
DISTANCE      softmax       hybrid  window_only  linear_only
     128        100 %         50 %            -            -
)");
}

// A hybrid no better than no context: nothing does the work.
TEST(ComponentTable, ADivergedModelIsLostAndNotBypassed) {
  auto job = EndedJob();
  job.mutable_report()->set_verdict("collapsed");
  EXPECT_NE(ComponentTable(job.report(), 8, TextStyle{}).find("the linear branch is bypassed"),
            std::string::npos);
  (*job.mutable_report()->mutable_components())["hybrid"].set_recovered(-0.7);
  EXPECT_NE(ComponentTable(job.report(), 8, TextStyle{}).find("the conversion lost the model"),
            std::string::npos);
}

TEST(ComponentTable, ColoursTheVerdictAndDrawsBlocks) {
  TextStyle style;
  style.color = true;
  style.unicode = true;
  const std::string text = ComponentTable(EndedJob().report(), 8, style);
  EXPECT_NE(text.find("Verdict: \x1b[32mbalanced\x1b[0m"), std::string::npos);
  EXPECT_NE(text.find("79 %  ████████████████░░░░"), std::string::npos) << text;
}

TEST(ResultJson, HoldsWhatScriptsRelyOn) {
  const auto result = ResultJson(EndedJob());
  EXPECT_EQ(result["job"], "projects/default/jobs/ssd");
  EXPECT_EQ(result["state"], "SUCCEEDED");
  EXPECT_EQ(result["verdict"], "balanced");
  EXPECT_EQ(result["artifact"], "/w/jobs/u/artifacts/model");
  EXPECT_EQ(result["report"], "/w/jobs/u/report.html");
  for (const char* mode :
       {"softmax", "hybrid", "window_only", "linear_only", "sinks_only", "none"}) {
    ASSERT_TRUE(result["components"][mode]["loss"].is_number()) << mode;
    ASSERT_TRUE(result["components"][mode].contains("recovered")) << mode;
  }
  EXPECT_EQ(result["components"]["sinks_only"]["recovered"], 0.0) << "a zero is not left out";
  EXPECT_TRUE(result["components"]["none"]["recovered"].is_null())
      << "undefined is null, not a number";
  EXPECT_EQ(result["passkey"][0]["accuracy"]["hybrid"], 0.5);
}

TEST(ResultJson, AFailedJobHasNoVerdict) {
  v1::Job job = RunningJob();
  job.set_state(v1::JOB_STATE_FAILED);
  job.set_reason("DATA");
  job.set_message("a.jsonl: line 2 is not JSON");
  const auto result = ResultJson(job);
  EXPECT_TRUE(result["verdict"].is_null());
  EXPECT_EQ(result["reason"], "DATA");
  EXPECT_TRUE(result["components"].empty());
}

TEST(VerdictRank, OrdersWhatRequireVerdictCompares) {
  EXPECT_GT(VerdictRank("balanced"), VerdictRank("leaning"));
  EXPECT_GT(VerdictRank("leaning"), VerdictRank("collapsed"));
  EXPECT_GT(VerdictRank("collapsed"), VerdictRank(""));
}

TEST(ProgressWords, SayStageStepLossSpeedAndTheRest) {
  EXPECT_EQ(ProgressWords(RunningJob()),
            "finetune (3/5)  step 130/260  loss 3.4123  4,277 tokens/s  ETA 0:42");
  v1::Job job = RunningJob();
  job.clear_progress();
  job.set_state(v1::JOB_STATE_PENDING);
  job.set_reason("NO_CAPACITY");
  job.set_message("waits for 2 slots\nmore words");
  EXPECT_EQ(ProgressWords(job), "PENDING (NO_CAPACITY): waits for 2 slots");
}

TEST(ProgressBar, FitsTheTerminal) {
  TextStyle style;
  EXPECT_EQ(ProgressBar(RunningJob(), style),
            "############............  finetune (3/5)  step 130/260  loss 3.4123  4,277 tokens/s  "
            "ETA 0:42");
  style.width = 40;
  EXPECT_EQ(ProgressBar(RunningJob(), style), "finetune (3/5)  step 130/260  loss 3.412");
}

TEST(JobTable, OneLinePerJob) {
  v1::Job again = RunningJob();  // it has run, and waits
  again.set_state(v1::JOB_STATE_PENDING);
  again.set_reason("NO_WORKER");
  EXPECT_EQ(JobTable({RunningJob(), EndedJob(), again}, kNowMs),
            "JOB  STATE      RECIPE  STAGE             TIME  WORKER  REMARK\n"
            "ssd  RUNNING    ssd     finetune 130/260  1:15  local   -\n"
            "ssd  SUCCEEDED  ssd     -                 1:15  local   balanced\n"
            "ssd  PENDING    ssd     -                 1:15  -       NO_WORKER\n");
  EXPECT_EQ(ShortName("projects/team/jobs/x"), "team/x");
}

TEST(WorkerTable, SaysStateInWords) {
  v1::Worker worker;
  worker.set_name("workers/local");
  worker.set_state(v1::WORKER_STATE_READY);
  worker.set_slots(2);
  worker.set_slots_in_use(1);
  worker.set_host("h");
  worker.set_device("cpu");
  worker.add_jobs("projects/default/jobs/ssd");
  v1::Worker with_gpus = worker;
  with_gpus.set_device("cuda");
  with_gpus.set_gpus(4);
  with_gpus.set_gpus_in_use(1);
  EXPECT_EQ(WorkerTable({worker, with_gpus}, kNowMs),
            "WORKER  STATE  SLOTS  GPUS  HOST  DEVICE  HEARTBEAT  JOBS\n"
            "local   READY  1/2    -     h     cpu     -          ssd\n"
            "local   READY  1/2    1/4   h     cuda    -          ssd\n");
}

// Collects what a printer prints.
struct Printed {
  FakeClock clock;
  std::string text;
  ProgressPrinter Printer(bool terminal) {
    return ProgressPrinter(terminal, TextStyle{}, clock,
                           [this](const std::string& more) { text += more; });
  }
};

TEST(ProgressPrinter, PlainLinesEveryTenSecondsAndOnAChangeOfStage) {
  Printed out;
  auto printer = out.Printer(false);
  v1::Job job = RunningJob();
  job.mutable_progress()->Clear();
  job.mutable_progress()->set_stage("finetune");
  printer.Show(job);
  job.mutable_progress()->set_step(2);
  job.mutable_progress()->set_steps(9);
  out.clock.AdvanceMs(9'999);
  printer.Show(job);
  EXPECT_EQ(out.text, "ssd: finetune\n");
  out.clock.AdvanceMs(1);
  printer.Show(job);
  EXPECT_EQ(out.text, "ssd: finetune\nssd: finetune  step 2/9\n");
  job.mutable_progress()->set_stage("evaluate");
  printer.Show(job);
  EXPECT_EQ(out.text, "ssd: finetune\nssd: finetune  step 2/9\nssd: evaluate  step 2/9\n");
}

TEST(ProgressPrinter, ABarRedrawsItselfAndNotesStandAboveIt) {
  Printed out;
  auto printer = out.Printer(true);
  v1::Job job = RunningJob();
  job.mutable_progress()->Clear();
  job.mutable_progress()->set_stage("prepare");
  printer.Show(job);
  printer.Note("connection lost");
  job.mutable_progress()->set_stage("evaluate");
  printer.Show(job);
  printer.Finish();
  EXPECT_EQ(out.text, "\r\x1b[Kprepare\r\x1b[Kconnection lost\n\r\x1b[Kevaluate\n");
}

TEST(ProgressPrinter, HidesWhatRunKnows) {
  Printed out;
  auto printer = out.Printer(false);
  printer.HideReason("NO_WORKER");
  v1::Job job = RunningJob();
  job.set_state(v1::JOB_STATE_PENDING);
  job.set_reason("NO_WORKER");
  printer.Show(job);
  EXPECT_EQ(out.text, "");
}

TEST(ProgressPrinter, LeavesAFailureToTheOutcome) {
  Printed out;
  auto printer = out.Printer(false);
  v1::Job job = RunningJob();
  job.set_message("attempt 1 ended: DATA: a.jsonl, line 2");
  for (const auto state : {v1::JOB_STATE_FAILED, v1::JOB_STATE_CANCELLED}) {
    job.set_state(state);
    printer.Show(job);
  }
  EXPECT_EQ(out.text, "");
}

TEST(FailureText, SaysCausePlaceWayOutAndLog) {
  v1::Job job = RunningJob();
  job.set_state(v1::JOB_STATE_FAILED);
  job.set_reason("DATA");
  job.set_message("attempt 1 ended: DATA: a.jsonl, line 2: not JSON\nmore of it");
  EXPECT_EQ(FailureText("job ssd", job, "/w/prepare.err"),
            "job ssd failed (DATA): attempt 1 ended: DATA: a.jsonl, line 2: not JSON\n"
            "  more of it\n"
            "  where:  attempt 1 on worker local, finetune step 130/260\n"
            "  to do:  mend the file that it names, and start the job again\n"
            "  log:    /w/prepare.err");
  job.clear_progress();
  job.set_reason("NONFINITE_LOSS");
  job.set_message("lower finetune.learning_rate");
  EXPECT_EQ(FailureText("job ssd", job, ""),
            "job ssd failed (NONFINITE_LOSS): lower finetune.learning_rate\n"
            "  where:  attempt 1 on worker local");
  job.set_state(v1::JOB_STATE_CANCELLED);
  EXPECT_EQ(FailureText("job ssd", job, "/w"), "job ssd was cancelled");
}

TEST(Rendered, YamlReadsLikeTheJson) {
  const nlohmann::json value = {
      {"a", 1}, {"b", {"x", "y z"}}, {"c", {{"d", nullptr}}}, {"e", nlohmann::json::array()}};
  EXPECT_EQ(Rendered(value, Format::kYaml),
            "a: 1\nb:\n  - \"x\"\n  - \"y z\"\nc:\n  d: null\ne: []\n");
}

TEST(Numbers, AreReadable) {
  EXPECT_EQ(Grouped(1234567.4), "1,234,567");
  EXPECT_EQ(Grouped(999), "999");
  EXPECT_EQ(Grouped(-1234), "-1,234");
  EXPECT_EQ(Duration(3661), "1:01:01");
  EXPECT_EQ(Fixed(std::nan(""), 2), "-");
}

const char* const kEstimate = R"({"version": 1, "ranks": 1, "device": "cpu", "seconds": 152.4,
  "stages": [
    {"stage": "attention_transfer", "stage_index": 0, "steps": 300, "tokens": 614400,
     "seconds": 61.2, "memory_bytes": 512000000},
    {"stage": "evaluate", "stage_index": 1, "tokens": 262144, "seconds": 7.06,
     "memory_bytes": 1480000000}]})";

TEST(PlanText, NamesEveryStagesStepsTokensTimeAndMemory) {
  EXPECT_EQ(PlanText(nlohmann::json::parse(kEstimate)),
            "plan: about 2:32 on 1 rank, estimated from a rehearsal of each stage; memory is one "
            "rank's\n"
            "  STAGE                  STEPS          TOKENS       TIME     MEMORY\n"
            "  attention_transfer       300         614,400       1:01     512 MB\n"
            "  evaluate                   -         262,144      7.1 s     1.5 GB");
  for (const char* odd : {"null", "3", "{}", R"({"stages": []})", R"({"stages": 3})"}) {
    EXPECT_EQ(PlanText(nlohmann::json::parse(odd)), "") << odd;
  }
}

TEST(Progress, ThePlanIsShownOnceAsSoonAsThereIsOne) {
  FakeClock clock;
  std::string printed, plan;
  ProgressPrinter progress(false, {}, clock, [&](const std::string& text) { printed += text; });
  int asked = 0;
  progress.ShowPlan([&](const v1::Job&) {
    ++asked;
    return plan;
  });
  progress.Show(RunningJob());
  EXPECT_EQ(printed.find("plan:"), std::string::npos);
  plan = "plan: about 1:00";
  progress.Show(RunningJob());
  progress.Show(RunningJob());
  EXPECT_EQ(asked, 2);
  EXPECT_NE(printed.find("plan: about 1:00\n"), std::string::npos);
  EXPECT_EQ(printed.find("plan:"), printed.rfind("plan:"));
}

}  // namespace
}  // namespace tandem::cli
