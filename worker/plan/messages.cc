#include "worker/plan/messages.h"

#include <cmath>
#include <nlohmann/json.hpp>

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

// Room for the other fields and for escapes beside the two free texts.
constexpr size_t kMaxFreeText = 8 * 1024;

std::string Line(const Json& message) {
  return message.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Json DataOf(const std::string& text) {
  Json data = Json::parse(text, nullptr, false);
  if (data.is_discarded()) data = Json{{"unreadable", text.substr(0, 200)}};
  return data;
}

// Typed reads of a message; the first wrong one is kept.
class Reader {
 public:
  explicit Reader(const Json& message) : message_(message) {}
  void Text(const char* key, std::string& value) {
    const auto found = message_.find(key);
    if (found == message_.end()) return;
    if (!found->is_string()) return Refuse(key, "a text");
    value = found->get<std::string>();
  }
  void Integer(const char* key, int64_t& value) {
    const auto found = message_.find(key);
    if (found == message_.end()) return;
    if (!found->is_number_integer()) return Refuse(key, "a whole number");
    value = found->get<int64_t>();
  }
  void Metrics(std::map<std::string, double>& metrics) {
    const auto found = message_.find("metrics");
    if (found == message_.end()) return;
    if (!found->is_object()) return Refuse("metrics", "an object");
    for (const auto& [name, value] : found->items()) {
      if (value.is_null()) {
        metrics[name] = std::nan("");  // JSON has no NaN; dump() writes null
      } else if (value.is_number()) {
        metrics[name] = value.get<double>();
      } else {
        return Refuse(name.c_str(), "a number");
      }
    }
  }
  const Status& status() const { return status_; }

 private:
  void Refuse(const std::string& key, const std::string& wanted) {
    if (status_.ok()) status_ = InvalidArgument("message's " + key + " must be " + wanted);
  }
  const Json& message_;
  Status status_;
};

Result<Json> ParseLine(const std::string& line) {
  if (static_cast<int64_t>(line.size()) > kMaxMessageBytes) {
    return InvalidArgument("message has " + std::to_string(line.size()) + " bytes; at most " +
                           std::to_string(kMaxMessageBytes));
  }
  Json message = Json::parse(line, nullptr, false);
  if (!message.is_object())
    return InvalidArgument("message is not a JSON object: " + line.substr(0, 80));
  int64_t version = -1;
  Reader reader(message);
  reader.Integer("v", version);
  if (version != kMessageVersion) {
    return InvalidArgument("message's v is not " + std::to_string(kMessageVersion) +
                           "; agent and rank must come from one build");
  }
  return message;
}

}  // namespace

std::string EncodeRankMessage(const RankMessage& message) {
  Json out = {{"v", kMessageVersion},
              {"type", message.type},
              {"epoch", message.epoch},
              {"rank", message.rank},
              {"seq", message.seq}};
  if (message.type == "hello") out["pid"] = message.pid;
  if (message.type == "progress" || message.type == "event" || message.type == "checkpoint") {
    out["stage"] = message.stage;
    out["stage_index"] = message.stage_index;
    out["step"] = message.step;
    out["steps"] = message.steps;
    out["metrics"] = message.metrics;
  }
  if (message.type != "hello" && message.type != "progress") {
    out["kind"] = message.kind;
    out["text"] = message.text.substr(0, kMaxFreeText);
    out["data"] = DataOf(message.data);
  }
  std::string line = Line(out);
  if (static_cast<int64_t>(line.size()) > kMaxMessageBytes) {
    out["data"] = Json{{"left_out_bytes", message.data.size()}};
    line = Line(out);
  }
  return line;
}

std::string EncodeAgentMessage(const AgentMessage& message) {
  Json out = {{"v", kMessageVersion}, {"type", message.type}, {"epoch", message.epoch}};
  if (message.type == "action") out["action"] = message.action;
  return Line(out);
}

Result<RankMessage> DecodeRankMessage(const std::string& line) {
  TANDEM_ASSIGN_OR_RETURN(const Json json, ParseLine(line));
  RankMessage message;
  Reader reader(json);
  reader.Text("type", message.type);
  reader.Integer("epoch", message.epoch);
  reader.Integer("rank", message.rank);
  reader.Integer("seq", message.seq);
  reader.Integer("pid", message.pid);
  reader.Text("stage", message.stage);
  reader.Integer("stage_index", message.stage_index);
  reader.Integer("step", message.step);
  reader.Integer("steps", message.steps);
  reader.Metrics(message.metrics);
  reader.Text("kind", message.kind);
  reader.Text("text", message.text);
  if (const auto data = json.find("data"); data != json.end()) {
    message.data = data->dump(-1, ' ', false, Json::error_handler_t::replace);
  }
  if (!reader.status().ok()) return reader.status();
  if (message.type.empty()) return InvalidArgument("message has no type");
  return message;
}

Result<AgentMessage> DecodeAgentMessage(const std::string& line) {
  TANDEM_ASSIGN_OR_RETURN(const Json json, ParseLine(line));
  AgentMessage message;
  Reader reader(json);
  reader.Text("type", message.type);
  reader.Integer("epoch", message.epoch);
  reader.Text("action", message.action);
  if (!reader.status().ok()) return reader.status();
  if (message.type.empty()) return InvalidArgument("message has no type");
  return message;
}

}  // namespace tandem
