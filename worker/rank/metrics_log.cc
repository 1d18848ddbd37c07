#include "worker/rank/metrics_log.h"

#include <nlohmann/json.hpp>
#include <utility>

namespace tandem {

std::string MetricsLine(const StepLine& line, const StepReport& report) {
  nlohmann::ordered_json json = {{"stage", line.stage},
                                 {"stage_index", line.stage_index},
                                 {"step", line.step},
                                 {"loss", report.loss},
                                 {"learning_rate", report.learning_rate}};
  if (!report.layer_losses.empty()) {
    json["layers"] = report.layer_losses;
    if (!report.layer_divergences.empty()) json["divergences"] = report.layer_divergences;
    if (!report.layer_stops.empty())
      json["layer_stops"] = nlohmann::json::parse(report.layer_stops);
  } else {
    json["grad_norm"] = report.grad_norm;
    json["window_dropped"] = report.window_dropped;
  }
  json["tokens"] = line.tokens;
  json["seconds"] = line.seconds;
  json["peak_memory_bytes"] = static_cast<int64_t>(line.peak_memory_bytes);
  return json.dump() + "\n";
}

Result<std::unique_ptr<MetricsLog>> MetricsLog::Open(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "ae");
  if (file == nullptr) return ErrnoStatus("open " + path);
  return std::unique_ptr<MetricsLog>(new MetricsLog(path, file));
}

MetricsLog::MetricsLog(std::string path, std::FILE* file) : path_(std::move(path)), file_(file) {}

MetricsLog::~MetricsLog() {
  std::fclose(file_);
}

Status MetricsLog::Append(const std::string& lines) {
  if (std::fwrite(lines.data(), 1, lines.size(), file_) != lines.size() ||
      std::fflush(file_) != 0) {
    return ErrnoStatus("write " + path_);
  }
  return Status::Ok();
}

}  // namespace tandem
