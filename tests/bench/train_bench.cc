// Times training steps of one rank, the whole step: projections, teacher, attention, loss,
// backward, optimiser.
//
// The counterpart of the anchor's timing loop (eager_trainer.py): the same raw ids in the same
// order, constant learning rate, the median of the steps after a warm-up, one JSON line with the
// anchor's field names. cpu_table.py runs both.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/files.h"
#include "worker/comm/collective.h"
#include "worker/model/llama.h"
#include "worker/train/attention_transfer.h"
#include "worker/train/finetune.h"
#include "worker/train/lora_start.h"

namespace tandem {
namespace {

struct BenchOptions {
  std::string model, data, objective = "hybrid_outputs", export_losses;
  int stage = 1, threads = 0;
  int64_t seq_len = 1024, batch = 1, window = 64, feature_dim = 64, steps = 10, warmup = 3;
  double window_dropout = 0, learning_rate = 0;
  bool train_maps = false;
};

BenchOptions Parse(int argc, char** argv) {
  BenchOptions o;
  CLI::App app("times Tandem's training steps");
  app.add_option("--model", o.model, "Hugging Face Llama directory")->required();
  app.add_option("--data", o.data, "raw little-endian uint16 ids")->required();
  app.add_option("--stage", o.stage, "1: attention transfer, 2: finetuning")
      ->check(CLI::Range(1, 2));
  app.add_option("--objective", o.objective, "stage 1: hybrid_outputs or weights");
  app.add_option("--seq-len", o.seq_len);
  app.add_option("--batch", o.batch);
  app.add_option("--window", o.window);
  app.add_option("--feature-dim", o.feature_dim);
  app.add_option("--steps", o.steps);
  app.add_option("--warmup", o.warmup);
  app.add_option("--threads", o.threads, "0: ATen's own choice");
  app.add_option("--window-dropout", o.window_dropout,
                 "stage 2: chance of a step without a window");
  app.add_option("--lr", o.learning_rate, "0: 1e-2 in stage 1, 1e-4 in stage 2");
  app.add_flag("--train-maps", o.train_maps);
  app.add_option("--export-losses", o.export_losses, "one JSON line per step");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    std::exit(app.exit(e));
  }
  return o;
}

std::vector<int64_t> ReadIds(const std::string& path) {
  const std::string bytes = ReadFile(path).value();
  std::vector<uint16_t> raw(bytes.size() / 2);
  std::memcpy(raw.data(), bytes.data(), raw.size() * 2);
  return {raw.begin(), raw.end()};
}

// Step s takes chunks sB ... sB+B-1 in file order, from the start again at the end.
at::Tensor BatchOf(const std::vector<int64_t>& ids, int64_t step, const BenchOptions& o) {
  const int64_t chunks = static_cast<int64_t>(ids.size()) / o.seq_len;
  TORCH_CHECK(chunks > 0, "the data is shorter than one sequence of ", o.seq_len);
  at::Tensor batch = at::empty({o.batch, o.seq_len}, at::kLong);
  for (int64_t b = 0; b < o.batch; ++b)
    std::memcpy(batch.mutable_data_ptr<int64_t>() + b * o.seq_len,
                ids.data() + (step * o.batch + b) % chunks * o.seq_len,
                static_cast<size_t>(o.seq_len) * sizeof(int64_t));
  return batch;
}

int64_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t total = 0, resident = 0;
  statm >> total >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

int64_t PeakBytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * 1024;
}

struct Timings {
  std::vector<double> wall_ms, cpu_ms;
  std::vector<StepReport> reports;
};

Timings RunSteps(TrainingStage& stage, const std::vector<int64_t>& ids, const BenchOptions& o) {
  Timings t;
  Clock& clock = Clock::System();
  for (int64_t step = 0; step < o.warmup + o.steps; ++step) {
    const StepBatch batch{BatchOf(ids, step, o), step * o.batch};
    const int64_t start = clock.MonotonicNs();
    const std::clock_t cpu_start = std::clock();
    t.reports.push_back(stage.Step(step, batch));
    t.cpu_ms.push_back(1e3 * static_cast<double>(std::clock() - cpu_start) / CLOCKS_PER_SEC);
    t.wall_ms.push_back(static_cast<double>(clock.MonotonicNs() - start) / 1e6);
  }
  t.wall_ms.erase(t.wall_ms.begin(), t.wall_ms.begin() + o.warmup);
  t.cpu_ms.erase(t.cpu_ms.begin(), t.cpu_ms.begin() + o.warmup);
  return t;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

double Mean(const std::vector<double>& values) {
  double sum = 0;
  for (double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

void ExportLosses(const std::string& path, const std::vector<StepReport>& reports) {
  std::ofstream out(path);
  for (size_t step = 0; step < reports.size(); ++step)
    out << nlohmann::json{{"step", step},
                          {"loss", reports[step].loss},
                          {"layers", reports[step].layer_losses},
                          {"window_dropped", reports[step].window_dropped > 0}}
        << "\n";
}

std::unique_ptr<TrainingStage> MakeStage(const BenchOptions& o, const Llama& model,
                                         const Parameters& parameters, Collective& collective) {
  LearningRateSchedule schedule;
  schedule.peak = o.learning_rate > 0 ? o.learning_rate : o.stage == 1 ? 1e-2 : 1e-4;
  schedule.steps = o.warmup + o.steps;
  schedule.constant = true;
  if (o.stage == 1) {
    AttentionTransferOptions options;
    options.objective = o.objective;
    options.attention.window = o.window;
    options.schedule = schedule;
    return std::make_unique<AttentionTransfer>(model, parameters, collective, options);
  }
  FinetuneOptions options;
  options.attention.window = o.window;
  options.schedule = schedule;
  options.train_maps = o.train_maps;
  options.train_factor = o.train_maps;
  options.clip_norm = 0;
  if (o.window_dropout > 0) options.dropout.schedule = {o.window_dropout};
  options.dropout.steps = schedule.steps;
  return std::make_unique<Finetune>(model, parameters, collective, options);
}

int Run(const BenchOptions& o) {
  if (o.threads > 0) at::set_num_threads(o.threads);
  const std::unique_ptr<Llama> model = Llama::Load(o.model).value();
  ParameterOptions parameter_options;
  parameter_options.feature_dim = o.feature_dim;
  if (o.stage == 2) parameter_options.lora = {8, 16, {"q_proj", "k_proj", "v_proj", "o_proj"}};
  const Parameters parameters(model->config(), parameter_options);
  if (o.stage == 2) DrawLoraStart(0, parameters);
  const std::unique_ptr<Collective> collective = MakeSoloCollective();
  const std::unique_ptr<TrainingStage> stage = MakeStage(o, *model, parameters, *collective);
  const std::vector<int64_t> ids = ReadIds(o.data);
  const int64_t before = ResidentBytes();
  const Timings t = RunSteps(*stage, ids, o);
  if (!o.export_losses.empty()) ExportLosses(o.export_losses, t.reports);
  const double median = Median(t.wall_ms);
  // Steps with and without a window have no common median.
  const double typical = o.window_dropout > 0 ? Mean(t.wall_ms) : median;
  const nlohmann::json line = {
      {"stage", o.stage},
      {"objective", o.stage == 1 ? o.objective : "next_token"},
      {"T", o.seq_len},
      {"batch", o.batch},
      {"tokens_per_second", static_cast<double>(o.batch * o.seq_len) / typical * 1e3},
      {"peak_memory_bytes", PeakBytes()},
      {"resident_before_bytes", before},
      {"threads", at::get_num_threads()},
      {"loss_first", t.reports.front().loss},
      {"loss_last", t.reports.back().loss},
      {"step_ms",
       {{"min", *std::min_element(t.wall_ms.begin(), t.wall_ms.end())}, {"median", median}}},
      {"cpu_ms_per_step", Median(t.cpu_ms)}};
  std::printf("%s\n", line.dump().c_str());
  return 0;
}

}  // namespace
}  // namespace tandem

int main(int argc, char** argv) {
  return tandem::Run(tandem::Parse(argc, argv));
}
