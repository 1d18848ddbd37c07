#include "coordinator/service/log_stream.h"

#include <utility>

#include "coordinator/service/job_names.h"
#include "coordinator/service/rich_error.h"
#include "coordinator/service/utf8.h"

namespace tandem::service {
namespace {

constexpr int64_t kLogAnswerMs = 10'000;
constexpr size_t kLongestLine = 64 << 10;  // longer ones are sent in parts

}  // namespace

void LogFollowers::Add(std::shared_ptr<LogStream> stream) {
  MutexLock lock(mu_);
  waiting_.push_back(std::move(stream));
}

std::vector<std::shared_ptr<LogStream>> LogFollowers::TakeAll() {
  MutexLock lock(mu_);
  return std::exchange(waiting_, {});
}

void LogFollowers::Wake() {
  for (const auto& stream : TakeAll()) stream->LookAgain();
}

void LogFollowers::CloseAll(const grpc::Status& status) {
  for (const auto& stream : TakeAll()) stream->Close(status);
}

std::shared_ptr<LogStream> LogStream::Self() {
  return std::static_pointer_cast<LogStream>(shared_from_this());
}

void LogStream::Start(const grpc::Status& checked) {
  Hold();
  if (!checked.ok()) return Close(checked);
  BeginRound();
}

void LogStream::LookAgain() {
  if (!closing()) BeginRound();
}

void LogStream::BeginRound() {
  Result<v1::Job> job = sources_.board.Find(request_.name());
  if (!job.ok()) return Close(ToGrpc(job.status()));
  job_ = std::move(*job);
  const int64_t wanted = request_.epoch() > 0 ? request_.epoch() : job_.epoch();
  if (wanted > job_.epoch()) {
    return Close(
        ToGrpc(NotFound("job '" + job_.name() + "' has had " + std::to_string(job_.epoch()) +
                        " attempts; there is no attempt " + std::to_string(wanted))));
  }
  if (wanted == 0) return EndBeforeTheFirst();
  // Before a newer attempt, one more round over the old one: it may have written until its end.
  leaving_ = epoch_ != 0 && wanted != epoch_ && !leaving_;
  if (!leaving_) {
    if (wanted != epoch_) files_.clear();
    epoch_ = wanted;
  }
  if (request_.file().empty()) return Ask("");
  to_read_ = {request_.file()};
  NextFile();
}

// Nothing has run yet; a follower waits for it.
void LogStream::EndBeforeTheFirst() {
  if (request_.follow() && !IsTerminal(job_.state())) return EndRound();
  std::string why = StateName(job_.state());
  if (!job_.reason().empty()) why += " (" + job_.reason() + ")";
  if (!job_.message().empty()) why += ": " + job_.message();
  Close(ToGrpc(FailedPrecondition("job '" + job_.name() +
                                  "' has had no attempt, so there are no logs; it is " + why)));
}

void LogStream::Ask(const std::string& file) {
  v1::ReadLogs question;
  question.set_job_uid(job_.uid());
  question.set_epoch(epoch_);
  question.set_file(file);
  if (!file.empty()) {
    const File& state = files_[file];
    question.set_offset(state.offset);
    if (!state.begun) question.set_tail_bytes(request_.tail_bytes());
  }
  const int64_t deadline = sources_.clock.MonotonicMs() + kLogAnswerMs;
  sources_.relay.AskLogs(job_.worker(), std::move(question), deadline,
                         [self = Self(), listing = file.empty()](Result<v1::LogChunk> answer) {
                           Status failed = answer.status();
                           if (answer.ok() && !answer->error().empty()) {
                             failed = NotFound(answer->error());
                           }
                           if (!failed.ok()) return self->OnNothing(failed);
                           listing ? self->OnFiles(*answer) : self->OnText(*answer);
                         });
}

// A follower waits: the attempt's folder may not be there yet, or its agent is reconnecting.
void LogStream::OnNothing(const Status& status) {
  if (!request_.follow() || IsTerminal(job_.state())) return Close(ToGrpc(status));
  to_read_.clear();
  EndRound();
}

void LogStream::OnFiles(const v1::LogChunk& answer) {
  to_read_.assign(answer.files().rbegin(), answer.files().rend());
  NextFile();
}

void LogStream::NextFile() {
  if (to_read_.empty()) return EndRound();
  Ask(to_read_.back());
}

void LogStream::OnText(const v1::LogChunk& answer) {
  const std::string name = to_read_.back();
  File& file = files_[name];
  file.begun = true;
  const bool stuck = answer.data().empty() && answer.next_offset() <= file.offset;
  file.offset = answer.next_offset();
  const bool at_end = answer.end_of_file() || stuck;
  const bool last_chance = at_end && (!request_.follow() || leaving_ || IsTerminal(job_.state()));
  v1::StreamLogsResponse message;
  message.set_text(TakeLines(name, file, answer.data(), last_chance));
  if (at_end) to_read_.pop_back();
  if (message.text().empty()) return NextFile();
  Send(std::move(message));  // OnDrained goes on
}

std::string LogStream::TakeLines(const std::string& name, File& file, const std::string& text,
                                 bool last_chance) const {
  file.partial += text;
  const std::string prefix = request_.file().empty() ? name + ": " : "";
  std::string lines;
  size_t start = 0;
  for (size_t end = 0; (end = file.partial.find('\n', start)) != std::string::npos;
       start = end + 1) {
    lines += prefix + file.partial.substr(start, end + 1 - start);
  }
  file.partial.erase(0, start);
  if (!file.partial.empty() && (last_chance || file.partial.size() > kLongestLine)) {
    lines += prefix + std::exchange(file.partial, "") + "\n";
  }
  return ValidUtf8(lines);
}

void LogStream::EndRound() {
  if (leaving_) return BeginRound();
  if (!request_.follow() || IsTerminal(job_.state())) return Close(grpc::Status::OK);
  sources_.followers.Add(Self());
}

}  // namespace tandem::service
