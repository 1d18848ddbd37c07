#include "tests/scenario/story.h"

#include <algorithm>
#include <sstream>

#include "coordinator/core/step.h"

namespace tandem::scenario {
namespace {

std::vector<std::string> Split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) {
    if (!part.empty()) parts.push_back(part);
  }
  return parts;
}

Command Parse(const std::string& line) {
  Command command;
  for (const std::string& part : Split(line, ' ')) {
    const size_t equals = part.find('=');
    if (command.verb.empty()) {
      command.verb = part;
    } else if (equals == std::string::npos) {
      command.words.push_back(part);
    } else {
      command.options[part.substr(0, equals)] = part.substr(equals + 1);
    }
  }
  return command;
}

core::AttemptRef Attempt(const std::string& text) {
  const std::vector<std::string> parts = Split(text, '/');
  TANDEM_CHECK_MSG(parts.size() == 2, "not an attempt: " + text);
  return {parts[0], std::stoll(parts[1])};
}

std::string Text(const core::AttemptRef& attempt) {
  return attempt.job + "/" + std::to_string(attempt.epoch);
}

std::string Text(const core::JobEvent& event) {
  std::string text = std::to_string(event.revision) + " " + event.job + " " + event.kind;
  text += event.before == event.after
              ? std::string(" ") + Name(event.after)
              : std::string(" ") + Name(event.before) + "->" + Name(event.after);
  if (!event.reason.empty()) text += " (" + event.reason + ")";
  return event.message.empty() ? text : text + ": " + event.message;
}

std::string Text(const core::Reply& reply) {
  if (!reply.status.ok()) return "reply " + reply.status.ToString();
  return "reply ok " + reply.job + reply.worker + (reply.replayed ? " (replayed)" : "");
}

struct CommandText {
  std::string operator()(const core::LaunchAttempt& c) const {
    return "launch " + Text(c.attempt) + " slots=" + std::to_string(c.slots);
  }
  std::string operator()(const core::StopAttempt& c) const {
    const bool is_kill = c.kind == core::StopKind::kKill;
    return (is_kill ? "kill " : "checkpoint-and-stop ") + Text(c.attempt) + ": " + c.reason;
  }
  std::string operator()(const core::FenceAttempts& c) const {
    return "fence " + c.job + " below " + std::to_string(c.epoch);
  }
  std::string operator()(const core::AckAttempt& c) const { return "ack " + Text(c.attempt); }
  std::string operator()(const core::AckHeartbeat& c) const {
    return "heartbeat " + std::to_string(c.sequence) + " answered";
  }
  std::string operator()(const core::ConfirmRegistration& c) const {
    return "registered, generation " + std::to_string(c.generation);
  }
  std::string operator()(const core::RefuseConnection& c) const {
    return "refused: " + c.status.ToString();
  }
};

std::string Text(const core::Effects& effects) {
  std::string text;
  for (const core::JobEvent& event : effects.persist.events) text += Text(event) + "\n";
  for (const core::Reply& reply : effects.replies) text += Text(reply) + "\n";
  for (const core::Command& command : effects.commands) {
    text += command.worker + "#" + std::to_string(command.connection) + " <- " +
            std::visit(CommandText{}, command.what) + "\n";
  }
  return text;
}

}  // namespace

std::string Command::Word(size_t index) const {
  TANDEM_CHECK_MSG(index < words.size(), verb + " needs more words");
  return words[index];
}

std::string Command::Option(const std::string& key, const std::string& fallback) const {
  const auto found = options.find(key);
  return found == options.end() ? fallback : found->second;
}

int64_t Command::Number(const std::string& key, int64_t fallback) const {
  return std::stoll(Option(key, std::to_string(fallback)));
}

Story::Story() {
  Load();
}

void Story::Load() {
  store_ = std::make_unique<store::MemoryStore>(disk_);
  state_ = {};
  connections_.clear();
  Result<store::Contents> contents = store_->Load(1'000);
  const core::Effects effects = core::Step(state_, contents->loaded, now_);
  TANDEM_CHECK_MSG(effects.commands.empty(), "a start must wait for registrations");
  history_.Restart(state_);
}

core::JobCreated Story::Create(const Command& c) {
  core::JobCreated event;
  event.token = 1;
  event.request_id = c.Option("request", "");
  event.uid = "u" + std::to_string(next_uid_);
  event.project = c.Option("project", "default");
  event.name = c.Word(0);
  event.request_digest = c.Option("digest", "d");
  event.priority = c.Number("priority", 0);
  event.slots = c.Number("slots", 1);
  event.gpus = c.Number("gpus", 0);
  event.spec = core::MakeBlob("spec of " + event.name);
  return event;
}

core::WorkerRegistered Story::Register(const Command& c) {
  core::WorkerRegistered event;
  event.worker = c.Word(0);
  event.connection = connections_[event.worker] = next_connection_++;
  event.incarnation = c.Option("inc", "a");
  event.slots = c.Number("slots", 1);
  event.gpus = c.Number("gpus", 0);
  for (const std::string& attempt : Split(c.Option("live", ""), ',')) {
    event.live.push_back(Attempt(attempt));
  }
  for (const std::string& attempt : Split(c.Option("ended", ""), ',')) {
    event.ended.push_back(Attempt(attempt));
  }
  return event;
}

core::HeartbeatReceived Story::Heartbeat(const Command& c) {
  core::HeartbeatReceived event{c.Word(0), Connection(c.Word(0)), {}, c.Number("seq", 0)};
  for (size_t i = 1; i < c.words.size(); ++i) {
    event.attempts.push_back({Attempt(c.words[i]), true, {}, false});
  }
  return event;
}

core::AttemptReported Story::Progress(const Command& c) {
  core::AttemptReported event{
      c.Word(0), Connection(c.Word(0)), {Attempt(c.Word(1)), true, {}, false}};
  event.report.has_progress = c.verb == "progress";
  event.report.progress.stage = c.Option("stage", "");
  event.report.progress.stage_index = c.Number("index", 0);
  event.report.progress.stage_count = c.Number("of", 5);
  event.report.progress.step = c.Number("step", 0);
  return event;
}

core::AttemptEnded Story::End(const Command& c) {
  core::AttemptEnded event{.worker = c.Word(0),
                           .connection = Connection(c.Word(0)),
                           .attempt = Attempt(c.Word(1)),
                           .cause = core::CauseFromName(c.Word(2)),
                           .detail = c.Option("detail", ""),
                           .report = nullptr,
                           .artifact = c.Option("artifact", ""),
                           .report_path = ""};
  if (c.options.contains("report")) event.report = core::MakeBlob(c.Option("report", ""));
  return event;
}

core::Event Story::EventOf(const Command& c) {
  if (c.verb == "create") return Create(c);
  if (c.verb == "cancel") return core::JobCancelRequested{1, c.Word(0), c.Number("etag", 0)};
  if (c.verb == "register") return Register(c);
  const std::string worker = c.words.empty() ? "" : c.Word(0);
  const core::ConnectionId connection = Connection(worker);
  if (c.verb == "disconnect") return core::WorkerDisconnected{worker, connection};
  if (c.verb == "leaving") return core::WorkerDrainAnnounced{worker, connection};
  if (c.verb == "drain") return core::WorkerDrainRequested{1, worker};
  if (c.verb == "undrain") return core::WorkerUndrainRequested{1, worker};
  if (c.verb == "heartbeat") return Heartbeat(c);
  if (c.verb == "running" || c.verb == "progress") return Progress(c);
  if (c.verb == "checkpoint") {
    const int64_t step = c.Number("step", 0);
    return core::CheckpointCommitted{worker,
                                     connection,
                                     Attempt(c.Word(1)),
                                     c.Number("stage", 1),
                                     step,
                                     c.Word(1) + "/step-" + std::to_string(step),
                                     "",
                                     0};
  }
  if (c.verb == "stage") {
    return core::StageCommitted{
        worker, connection, Attempt(c.Word(1)), c.Option("name", "?"), c.Number("index", 0), ""};
  }
  TANDEM_CHECK_MSG(c.verb == "end", "unknown command: " + c.verb);
  return End(c);
}

std::string Story::Step(const core::Event& event) {
  const core::Effects effects = core::Step(state_, event, now_);
  TANDEM_CHECK(store_->Commit({&effects.persist}).ok());
  std::string text = Text(effects);
  for (const std::string& broken : history_.Check(state_, effects))
    text += "BROKEN " + broken + "\n";
  for (const std::string& broken : core::CheckInvariants(state_, now_)) {
    text += "BROKEN " + broken + "\n";
  }
  return text;
}

std::string Story::Wait(int64_t ms, int64_t step_ms) {
  std::string text;
  for (int64_t left_ms = ms; left_ms > 0; left_ms -= step_ms) {
    now_.monotonic_ms += std::min(left_ms, step_ms);
    now_.wall_ms += std::min(left_ms, step_ms);
    text += Step(core::Ticked{});
  }
  return text;
}

std::string Story::Do(const std::string& line) {
  const Command command = Parse(line);
  if (command.verb == "jobs") return Jobs();
  if (command.verb == "workers") return Workers();
  if (command.verb == "restart") {
    Load();
    return "";
  }
  if (command.verb == "tick") return Wait(std::stoll(command.Word(0)), 1'000);
  if (command.verb == "pause") {
    return Wait(std::stoll(command.Word(0)), std::stoll(command.Word(0)));
  }
  const core::Event event = EventOf(command);
  const std::string text = Step(event);
  const auto* created = std::get_if<core::JobCreated>(&event);
  if (created != nullptr && state_.jobs.contains(created->uid)) ++next_uid_;
  return text;
}

std::string Story::Jobs() const {
  std::string text;
  for (const auto& [uid, job] : state_.jobs) {
    text += uid + " " + job.name + " " + Name(job.state) + " epoch=" + std::to_string(job.epoch);
    if (IsLive(job.attempt.state)) {
      text += std::string(" ") + Name(job.attempt.state) + " on " + job.attempt.worker;
    }
    if (!ReasonOf(job).empty()) text += " (" + ReasonOf(job) + ")";
    if (!MessageOf(job).empty()) text += ": " + MessageOf(job);
    if (job.report != nullptr) text += " report=" + *job.report;
    text += "\n";
  }
  return text.empty() ? "none\n" : text;
}

std::string Story::Workers() const {
  std::string text;
  for (const auto& [name, worker] : state_.workers) {
    text += name + " " + Name(StateOf(worker)) + " " + std::to_string(SlotsInUse(worker)) + "/" +
            std::to_string(worker.slots);
    if (worker.gpus > 0) {
      text += " gpus=" + std::to_string(GpusInUse(worker)) + "/" + std::to_string(worker.gpus);
    }
    for (const auto& [attempt, occupant] : worker.occupants) {
      text += " " + Text(attempt) + (occupant.owned ? "" : " (fenced)");
    }
    text += "\n";
  }
  return text.empty() ? "none\n" : text;
}

}  // namespace tandem::scenario
