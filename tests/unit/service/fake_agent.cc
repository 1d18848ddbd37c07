#include "tests/unit/service/fake_agent.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

namespace tandem::service {

FakeAgent::FakeAgent(const std::shared_ptr<grpc::Channel>& channel, FakeAgentOptions options)
    : options_(std::move(options)),
      stub_(v1::WorkerControl::NewStub(channel)),
      files_(options_.files) {
  stream_ = stub_->Channel(&context_);
  v1::ChannelRequest first;
  v1::Register& registration = *first.mutable_register_();
  registration.set_worker(options_.worker);
  registration.set_incarnation(options_.incarnation);
  registration.set_slots(options_.slots);
  registration.set_host("localhost");
  registration.set_version("test");
  registration.set_device("cpu");
  for (const v1::AttemptRef& attempt : options_.live) *registration.add_live() = attempt;
  for (const v1::AttemptRef& attempt : options_.ended) *registration.add_ended() = attempt;
  Send(first);
  reader_ = std::thread([this] { Read(); });
}

FakeAgent::~FakeAgent() {
  context_.TryCancel();
  reader_.join();
}

void FakeAgent::Send(const v1::ChannelRequest& message) {
  MutexLock lock(write_mu_);
  stream_->Write(message);
}

void FakeAgent::Read() {
  v1::ChannelResponse message;
  while (stream_->Read(&message)) {
    if (message.has_inspect()) {
      AnswerInspect(message.inspect());
    } else if (message.has_read_logs() && options_.answers_logs) {
      AnswerLogs(message.read_logs());
    } else {
      MutexLock lock(mu_);
      commands_.push_back(message);
    }
    changed_.notify_all();
  }
  MutexLock lock(mu_);
  ended_ = true;
  changed_.notify_all();
}

void FakeAgent::AnswerInspect(const v1::Inspect& question) {
  {
    MutexLock lock(mu_);
    ++inspections_;
  }
  if (!options_.answers_inspect) return;
  v1::ChannelRequest answer;
  answer.mutable_inspect_result()->set_request_id(question.request_id());
  for (const v1::Violation& violation : options_.violations) {
    *answer.mutable_inspect_result()->add_violations() = violation;
  }
  Send(answer);
}

void FakeAgent::AnswerLogs(const v1::ReadLogs& question) {
  v1::ChannelRequest message;
  v1::LogChunk& chunk = *message.mutable_log_chunk();
  chunk.set_request_id(question.request_id());
  {
    MutexLock lock(mu_);
    for (const auto& [name, content] : files_) {
      if (name.rfind("report:", 0) != 0) chunk.add_files(name);
    }
    const bool report = !question.report_format().empty();
    const std::string name = report ? "report:" + question.report_format() : question.file();
    const auto file = files_.find(name);
    if (file != files_.end()) {
      const size_t size = file->second.size();
      size_t offset = std::min(size, static_cast<size_t>(question.offset()));
      if (offset == 0 && question.tail_bytes() > 0) {
        offset = size - std::min(size, static_cast<size_t>(question.tail_bytes()));
      }
      chunk.set_data(file->second.substr(offset, options_.chunk_bytes));
      chunk.set_next_offset(static_cast<int64_t>(offset + chunk.data().size()));
      chunk.set_end_of_file(offset + chunk.data().size() == size);
    } else if (!name.empty()) {
      chunk.set_error("there is no file " + name);
    }
  }
  Send(message);
}

v1::ChannelResponse FakeAgent::Await(v1::ChannelResponse::MessageCase kind) {
  MutexLock lock(mu_);
  const auto found = [&] {
    return std::find_if(commands_.begin(), commands_.end(),
                        [kind](const auto& one) { return one.message_case() == kind; });
  };
  changed_.wait_for(mu_, kPatience, [&] { return ended_ || found() != commands_.end(); });
  const auto it = found();
  if (it == commands_.end()) {
    ADD_FAILURE() << "no command of kind " << kind << (ended_ ? "; the stream has ended" : "");
    return {};
  }
  v1::ChannelResponse message = *it;
  commands_.erase(it);
  return message;
}

v1::Launch FakeAgent::AwaitLaunch() {
  return Await(v1::ChannelResponse::kLaunch).launch();
}

void FakeAgent::SendRunning(const v1::AttemptRef& attempt, int64_t step) {
  v1::ChannelRequest message;
  v1::AttemptStatus& status = *message.mutable_attempt();
  *status.mutable_attempt() = attempt;
  status.set_phase(v1::ATTEMPT_PHASE_RUNNING);
  v1::JobProgress& progress = *status.mutable_progress();
  progress.set_stage("finetune");
  progress.set_stage_index(2);
  progress.set_stage_count(5);
  progress.set_step(step);
  progress.set_steps(100);
  progress.set_loss(2.5);
  Send(message);
}

void FakeAgent::SendEnded(const v1::AttemptRef& attempt, const std::string& cause,
                          const std::string& detail) {
  v1::ChannelRequest message;
  v1::AttemptStatus& status = *message.mutable_attempt();
  *status.mutable_attempt() = attempt;
  status.set_phase(v1::ATTEMPT_PHASE_ENDED);
  status.set_cause(cause);
  status.set_detail(detail);
  if (cause == "OK") {
    status.mutable_report()->set_verdict("balanced");
    (*status.mutable_report()->mutable_components())["hybrid"].set_loss(2.25);
    status.set_artifact("/work/jobs/x/artifacts/model");
    status.set_report_path("/work/jobs/x/report.html");
  }
  Send(message);
}

void FakeAgent::Heartbeat(const std::vector<v1::AttemptRef>& running) {
  v1::ChannelRequest message;
  message.mutable_heartbeat()->set_sequence(7);
  for (const v1::AttemptRef& attempt : running) {
    v1::AttemptStatus& status = *message.mutable_heartbeat()->add_attempts();
    *status.mutable_attempt() = attempt;
    status.set_phase(v1::ATTEMPT_PHASE_RUNNING);
  }
  Send(message);
}

void FakeAgent::WriteFile(const std::string& name, const std::string& content) {
  MutexLock lock(mu_);
  files_[name] = content;
}

int FakeAgent::inspections() const {
  MutexLock lock(mu_);
  return inspections_;
}

int FakeAgent::Waiting(v1::ChannelResponse::MessageCase kind) const {
  MutexLock lock(mu_);
  return static_cast<int>(
      std::count_if(commands_.begin(), commands_.end(),
                    [kind](const v1::ChannelResponse& one) { return one.message_case() == kind; }));
}

grpc::Status FakeAgent::Disconnect() {
  context_.TryCancel();
  return AwaitEnd();
}

grpc::Status FakeAgent::AwaitEnd() {
  {
    MutexLock lock(mu_);
    changed_.wait_for(mu_, kPatience, [this] { return ended_; });
    if (!ended_) {
      ADD_FAILURE() << "the stream did not end";
      return grpc::Status::OK;
    }
  }
  return stream_->Finish();
}

void RunToSuccess(FakeAgent& agent, const v1::Launch& launch) {
  agent.SendRunning(launch.attempt(), 1);
  agent.SendEnded(launch.attempt(), "OK");
  agent.Await(v1::ChannelResponse::kAttemptAck);
}

}  // namespace tandem::service
