#include "coordinator/store/row_json.h"

#include <nlohmann/json.hpp>
#include <type_traits>

namespace tandem::store {
namespace {

using nlohmann::json;

// One list of members serves both directions: Row is the writer or the reader.
class Writer {
 public:
  template <typename T>
  void operator()(const char* key, const T& value) {
    if constexpr (std::is_enum_v<T>) {
      row_[key] = static_cast<int>(value);
    } else {
      row_[key] = value;
    }
  }
  void State(const char* key, core::JobState value) { row_[key] = Name(value); }
  void State(const char* key, core::AttemptState value) { row_[key] = Name(value); }
  void State(const char* key, core::Cause value) { row_[key] = Name(value); }
  // User text may hold anything; what is not UTF-8 is replaced.
  std::string Text() const { return row_.dump(-1, ' ', false, json::error_handler_t::replace); }

 private:
  json row_ = json::object();
};

class Reader {
 public:
  explicit Reader(const std::string& text) : row_(json::parse(text)) {}
  template <typename T>
  void operator()(const char* key, T& value) {
    if (!row_.contains(key)) return;
    if constexpr (std::is_enum_v<T>) {
      value = static_cast<T>(row_.at(key).get<int>());
    } else {
      value = row_.at(key).get<T>();
    }
  }
  void State(const char* key, core::JobState& value) {
    Known(key, JobStateFromName(Get(key), &value));
  }
  void State(const char* key, core::AttemptState& value) {
    Known(key, AttemptStateFromName(Get(key), &value));
  }
  void State(const char* key, core::Cause& value) { value = core::CauseFromName(Get(key)); }

 private:
  std::string Get(const char* key) const { return row_.at(key).get<std::string>(); }
  void Known(const char* key, bool is_known) const {
    if (!is_known) throw std::invalid_argument(std::string(key) + " is " + Get(key));
  }
  json row_;
};

template <typename Row, typename J>
void Members(Row& row, J& job) {
  row("uid", job.uid);
  row("project", job.project);
  row("name", job.name);
  row("priority", job.priority);
  row("slots", job.slots);
  row("gpus", job.gpus);
  row("spec_digest", job.spec_digest);
  row("submit_revision", job.submit_revision);
  row("create_wall_ms", job.create_wall_ms);
  row.State("state", job.state);
  row("revision", job.revision);
  row("epoch", job.epoch);
  row.State("attempt_state", job.attempt.state);
  row("worker", job.attempt.worker);
  row("incarnation", job.attempt.incarnation);
  row.State("cause", job.attempt.cause);
  row("message", job.message);
  row("reason", job.reason);
  row("start_wall_ms", job.start_wall_ms);
  row("end_wall_ms", job.end_wall_ms);
  row("ends_in_a_row", job.ends_in_a_row);
  row("charged_ends", job.charged_ends);
  row("committed_stage", job.committed_stage);
  row("committed_step", job.committed_step);
  row("checkpoint", job.checkpoint);
  row("artifact", job.artifact);
  row("report_path", job.report_path);
}

template <typename Row, typename E>
void EventMembers(Row& row, E& event) {
  row("revision", event.revision);
  row("job", event.job);
  row("epoch", event.epoch);
  row("wall_ms", event.wall_ms);
  row("kind", event.kind);
  row("message", event.message);
  row.State("before", event.before);
  row.State("after", event.after);
  row("reason", event.reason);
}

template <typename Row, typename R>
void RequestMembers(Row& row, R& request) {
  row("id", request.id);
  row("digest", request.digest);
  row("job", request.job);
  row("wall_ms", request.wall_ms);
}

template <typename Row, typename W>
void WorkerMembers(Row& row, W& worker) {
  row("name", worker.name);
  row("incarnation", worker.incarnation);
  row("former_incarnation", worker.former_incarnation);
  row("slots", worker.slots);
  row("gpus", worker.gpus);
  row("host", worker.host);
  row("version", worker.version);
  row("device", worker.device);
  row("metrics_address", worker.metrics_address);
  row("drain", worker.drain);
}

// nlohmann reports by exception; it goes no further than here.
template <typename T, typename Read>
Result<T> Parse(const char* what, const std::string& text, const Read& read) {
  try {
    Reader reader(text);
    T value;
    read(reader, value);
    return value;
  } catch (const std::exception& error) {
    return DataLoss(std::string("a row of ") + what + " is damaged: " + error.what());
  }
}

}  // namespace

std::string JobToJson(const core::Job& job) {
  Writer writer;
  Members(writer, job);
  return writer.Text();
}

Result<core::Job> JobFromJson(const std::string& text) {
  return Parse<core::Job>("jobs", text, [](Reader& r, core::Job& job) { Members(r, job); });
}

std::string EventToJson(const core::JobEvent& event) {
  Writer writer;
  EventMembers(writer, event);
  return writer.Text();
}

Result<core::JobEvent> EventFromJson(const std::string& text) {
  return Parse<core::JobEvent>("events", text,
                               [](Reader& r, core::JobEvent& event) { EventMembers(r, event); });
}

std::string RequestToJson(const core::RequestRecord& request) {
  Writer writer;
  RequestMembers(writer, request);
  return writer.Text();
}

Result<core::RequestRecord> RequestFromJson(const std::string& text) {
  return Parse<core::RequestRecord>(
      "requests", text, [](Reader& r, core::RequestRecord& value) { RequestMembers(r, value); });
}

std::string WorkerToJson(const core::Worker& worker) {
  Writer writer;
  WorkerMembers(writer, worker);
  return writer.Text();
}

Result<core::Worker> WorkerFromJson(const std::string& text) {
  return Parse<core::Worker>("workers", text,
                             [](Reader& r, core::Worker& worker) { WorkerMembers(r, worker); });
}

}  // namespace tandem::store
