#include "worker/rank/tensorboard_log.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/digest.h"
#include "base/files.h"

namespace tandem {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

template <typename T>
void AppendRaw(T value, std::string& bytes) {
  char raw[sizeof value];
  std::memcpy(raw, &value, sizeof value);
  bytes.append(raw, sizeof value);
}

void AppendVarint(uint64_t value, std::string& bytes) {
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>((value & 0x7F) | 0x80);
  bytes += static_cast<char>(value);
}

// A length-delimited protobuf field.
void AppendField(char key, const std::string& content, std::string& bytes) {
  bytes += key;
  AppendVarint(content.size(), bytes);
  bytes += content;
}

uint32_t MaskedCrc(const std::string& bytes) {
  return std::rotr(Crc32c(bytes.data(), bytes.size()), 15) + 0xa282ead8U;
}

std::string Record(const std::string& event) {
  std::string bytes;
  AppendRaw(static_cast<uint64_t>(event.size()), bytes);
  AppendRaw(MaskedCrc(bytes), bytes);
  bytes += event;
  AppendRaw(MaskedCrc(event), bytes);
  return bytes;
}

std::string SummaryOf(const Scalars& scalars) {
  std::string summary;
  for (const auto& [tag, value] : scalars) {
    if (!std::isfinite(value)) continue;
    std::string entry;
    AppendField('\x0A', tag, entry);
    entry += '\x15';
    AppendRaw(static_cast<float>(value), entry);
    AppendField('\x0A', entry, summary);
  }
  return summary;
}

std::string TwoDigits(size_t number) {
  const std::string text = std::to_string(number);
  return text.size() < 2 ? "0" + text : text;
}

// Empty where the text is no report.
Scalars ComponentScalars(const std::string& report_json) {
  const auto report = nlohmann::json::parse(report_json, nullptr, /*allow_exceptions=*/false);
  Scalars scalars;
  if (!report.is_object()) return scalars;
  const auto components = report.value("components", nlohmann::json::object());
  for (const auto& [mode, figures] : components.items()) {
    for (const char* figure : {"loss", "recovered"}) {
      if (!figures.is_object() || !figures.contains(figure) || !figures[figure].is_number())
        continue;
      scalars.emplace_back(std::string("component_") + figure + "/" + mode,
                           figures[figure].get<double>());
    }
  }
  if (report.contains("linear_capability") && report["linear_capability"].is_number())
    scalars.emplace_back("linear_capability", report["linear_capability"].get<double>());
  return scalars;
}

}  // namespace

Result<std::unique_ptr<TensorboardLog>> TensorboardLog::Open(const std::string& job_folder,
                                                             int64_t epoch, int64_t steps_done,
                                                             const Clock& clock) {
  const std::string folder = JoinPath(job_folder, "artifacts/tensorboard");
  TANDEM_RETURN_IF_ERROR(MakeFolders(folder));
  char name[64];
  std::snprintf(name, sizeof name, "events.out.tfevents.%010lld.tandem",
                static_cast<long long>(epoch));
  const std::string path = JoinPath(folder, name);
  std::FILE* file = std::fopen(path.c_str(), "we");
  if (file == nullptr) return ErrnoStatus("open " + path);
  std::unique_ptr<TensorboardLog> log(new TensorboardLog(path, file, clock));
  std::string version;
  AppendField('\x1A', "brain.Event:2", version);
  TANDEM_RETURN_IF_ERROR(log->Write(0, version));
  std::string session;
  AppendField('\x3A', "\x08\x01", session);  // SessionLog.START
  TANDEM_RETURN_IF_ERROR(log->Write(steps_done + 1, session));
  return log;
}

TensorboardLog::TensorboardLog(std::string path, std::FILE* file, const Clock& clock)
    : path_(std::move(path)), file_(file), clock_(clock) {}

TensorboardLog::~TensorboardLog() {
  std::fclose(file_);
}

Status TensorboardLog::Append(int64_t step, const Scalars& scalars) {
  std::string content;
  AppendField('\x2A', SummaryOf(scalars), content);
  return Write(step, content);
}

Status TensorboardLog::AppendSteps(int64_t steps_before, const std::string& metrics_lines) {
  std::istringstream lines(metrics_lines);
  for (std::string line; std::getline(lines, line);) {
    const auto step = nlohmann::json::parse(line).at("step").get<int64_t>();
    TANDEM_RETURN_IF_ERROR(Append(steps_before + step, StepScalars(line)));
  }
  return Status::Ok();
}

Status TensorboardLog::AppendReport(int64_t step, const std::string& report_path) {
  TANDEM_ASSIGN_OR_RETURN(const std::string report, ReadFile(report_path));
  return Append(step, ComponentScalars(report));
}

Status TensorboardLog::Write(int64_t step, const std::string& content) {
  std::string event = "\x09";
  AppendRaw(static_cast<double>(clock_.WallMs()) * 1e-3, event);
  event += '\x10';
  AppendVarint(static_cast<uint64_t>(step), event);
  event += content;
  const std::string bytes = Record(event);
  if (std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size() || std::fflush(file_) != 0)
    return ErrnoStatus("write " + path_);
  return Status::Ok();
}

Scalars StepScalars(const std::string& metrics_line) {
  const auto line = nlohmann::json::parse(metrics_line);
  const auto stage = line.at("stage").get<std::string>();
  Scalars scalars;
  for (const char* key : {"loss", "learning_rate", "grad_norm", "window_dropped"}) {
    if (line.contains(key)) scalars.emplace_back(stage + "/" + key, line[key].get<double>());
  }
  if (!line.value("reused", false)) {
    const double tokens = line.at("tokens"), seconds = line.at("seconds");
    scalars.emplace_back(stage + "/tokens_per_second", tokens / std::max(seconds, 1e-9));
  }
  const auto layers = line.value("layers", nlohmann::json::array());
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    if (layers[layer].is_null()) continue;  // it has stopped
    scalars.emplace_back(stage + "_layers/layer_" + TwoDigits(layer), layers[layer].get<double>());
  }
  return scalars;
}

}  // namespace tandem
