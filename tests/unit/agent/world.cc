#include "tests/unit/agent/world.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "spec/spec.h"
#include "worker/agent/marked_processes.h"

namespace tandem::agent {
namespace {

const std::string kSource = TANDEM_SOURCE_DIR;
const std::string kBinary = TANDEM_BINARY_DIR;

std::chrono::steady_clock::time_point Deadline() {
  return std::chrono::steady_clock::now() + std::chrono::seconds(kDeadlineSeconds);
}

}  // namespace

FakeCoordinator::FakeCoordinator(int64_t lease_ms) : lease_ms_(lease_ms) {
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(this);
  server_ = builder.BuildAndStart();
  address_ = "127.0.0.1:" + std::to_string(port);
}

FakeCoordinator::~FakeCoordinator() {
  DropStream();
  server_->Shutdown(std::chrono::system_clock::now());
}

grpc::Status FakeCoordinator::Channel(grpc::ServerContext* context, Stream* stream) {
  {
    const std::lock_guard lock(mu_);
    stream_ = stream;
    context_ = context;
  }
  for (v1::ChannelRequest message; stream->Read(&message);) {
    const std::lock_guard lock(mu_);
    Answer(message, stream);
    said_.push_back(message);
    changed_.notify_all();
  }
  const std::lock_guard lock(mu_);
  if (stream_ == stream) {
    stream_ = nullptr;
    context_ = nullptr;
  }
  changed_.notify_all();
  return grpc::Status::OK;
}

void FakeCoordinator::Answer(const v1::ChannelRequest& message, Stream* stream) {
  v1::ChannelResponse response;
  if (message.has_register_()) {
    silent_ = false;
    response.mutable_registered()->set_lease_ms(lease_ms_);
    response.mutable_registered()->set_heartbeat_ms(100);
  } else if (silent_) {
    return;
  } else if (message.has_heartbeat()) {
    response.mutable_heartbeat_ack()->set_sequence(message.heartbeat().sequence());
  } else if (acknowledge_ && message.attempt().phase() == v1::ATTEMPT_PHASE_ENDED) {
    *response.mutable_attempt_ack()->mutable_attempt() = message.attempt().attempt();
  } else {
    return;
  }
  stream->Write(response);
}

void FakeCoordinator::Send(v1::ChannelResponse message) {
  const std::lock_guard lock(mu_);
  ASSERT_NE(stream_, nullptr) << "the agent is not connected";
  stream_->Write(message);
}

void FakeCoordinator::Launch(const std::string& uid, int64_t epoch, const std::string& what,
                             const v1::JobSpec& spec) {
  v1::ChannelResponse message;
  v1::Launch& launch = *message.mutable_launch();
  launch.mutable_attempt()->set_job_uid(uid);
  launch.mutable_attempt()->set_epoch(epoch);
  launch.set_job_name("projects/default/jobs/" + what);
  launch.set_slots(spec.parallelism().data());
  *launch.mutable_spec() = spec;
  Send(std::move(message));
}

void FakeCoordinator::Launch(const std::string& uid, int64_t epoch, const std::string& what,
                             int64_t ranks) {
  Launch(uid, epoch, what, SmallSpec(ranks));
}

void FakeCoordinator::Stop(const std::string& uid, int64_t epoch, v1::Stop::Kind kind) {
  v1::ChannelResponse message;
  message.mutable_stop()->mutable_attempt()->set_job_uid(uid);
  message.mutable_stop()->mutable_attempt()->set_epoch(epoch);
  message.mutable_stop()->set_kind(kind);
  message.mutable_stop()->set_reason("the test says so");
  Send(std::move(message));
}

void FakeCoordinator::DropStream() {
  const std::lock_guard lock(mu_);
  if (context_ != nullptr) context_->TryCancel();
}

void FakeCoordinator::GoSilent() {
  const std::lock_guard lock(mu_);
  silent_ = true;
}

void FakeCoordinator::AcknowledgeEnds(bool yes) {
  const std::lock_guard lock(mu_);
  acknowledge_ = yes;
}

bool FakeCoordinator::Await(const std::string& what,
                            const std::function<bool(const Messages&)>& holds) {
  std::unique_lock lock(mu_);
  if (changed_.wait_until(lock, Deadline(), [&] { return holds(said_); })) return true;
  std::string last;
  for (size_t i = said_.size() - std::min<size_t>(said_.size(), 6); i < said_.size(); ++i) {
    last += said_[i].ShortDebugString().substr(0, 600) + "\n";
  }
  ADD_FAILURE() << "not within " << kDeadlineSeconds << " s: " << what << "; last said:\n" << last;
  return false;
}

v1::AttemptStatus FakeCoordinator::AwaitEnd(const std::string& uid, int64_t epoch) {
  v1::AttemptStatus end;
  Await("the end of " + uid + " " + std::to_string(epoch), [&](const Messages& said) {
    for (const auto& message : said) {
      const v1::AttemptStatus& status = message.attempt();
      if (status.phase() != v1::ATTEMPT_PHASE_ENDED) continue;
      if (status.attempt().job_uid() == uid && status.attempt().epoch() == epoch) end = status;
    }
    return end.phase() == v1::ATTEMPT_PHASE_ENDED;
  });
  return end;
}

void FakeCoordinator::AwaitTraining(const std::string& uid, int64_t epoch, int64_t step) {
  const auto is_far = [&](const v1::AttemptStatus& status) {
    return status.attempt().job_uid() == uid && status.attempt().epoch() == epoch &&
           status.progress().stage() == "attention_transfer" && status.progress().step() >= step;
  };
  Await("training of " + uid, [&](const Messages& said) {
    return std::any_of(said.begin(), said.end(), [&](const auto& message) {
      const auto& beats = message.heartbeat().attempts();
      return is_far(message.attempt()) || std::any_of(beats.begin(), beats.end(), is_far);
    });
  });
}

v1::Register FakeCoordinator::AwaitRegistration(size_t count) {
  v1::Register newest;
  Await("registration " + std::to_string(count), [&](const Messages& said) {
    size_t found = 0;
    for (const auto& message : said) {
      if (!message.has_register_()) continue;
      newest = message.register_();
      ++found;
    }
    return found >= count;
  });
  return newest;
}

FakeCoordinator::Messages FakeCoordinator::Said() {
  const std::lock_guard lock(mu_);
  return said_;
}

WorkerProcess::WorkerProcess(const std::string& work, const std::string& coordinator,
                             const std::vector<std::string>& more)
    : work_(work) {
  std::vector<std::string> argv = {kBinary + "/bin/tandem-worker",
                                   "--coordinator",
                                   coordinator,
                                   "--work",
                                   work,
                                   "--name",
                                   "w",
                                   "--slots",
                                   "4",
                                   "--threads-per-slot",
                                   "1",
                                   "--python",
                                   kSource + "/tests/unit/agent/fake_python.sh",
                                   "--rank",
                                   kBinary + "/tests/tandem-fake-rank"};
  for (size_t i = 0; i + 1 < more.size(); i += 2) {  // pairs; they replace those above
    const auto old = std::find(argv.begin(), argv.end(), more[i]);
    if (old != argv.end()) argv.erase(old, old + 2);
    argv.insert(argv.end(), {more[i], more[i + 1]});
  }
  std::vector<char*> pointers;
  for (std::string& text : argv) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  const std::string log = work + "/worker.log";
  pid_ = fork();
  if (pid_ != 0) return;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int fd = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  dup2(fd, 1);
  dup2(fd, 2);
  execv(pointers[0], pointers.data());
  _exit(127);
}

WorkerProcess::~WorkerProcess() {
  if (pid_ < 0) return;
  kill(pid_, SIGKILL);
  Wait();
  if (testing::Test::HasFailure()) std::fprintf(stderr, "worker's log:\n%s\n", Log().c_str());
}

void WorkerProcess::Signal(int number) const {
  kill(pid_, number);
}

int WorkerProcess::Wait() {
  int status = 0;
  const bool ended =
      AwaitTrue("the worker's end", [&] { return waitpid(pid_, &status, WNOHANG) == pid_; });
  if (!ended) return -1;
  pid_ = -1;
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

std::string WorkerProcess::Log() const {
  const auto text = ReadFile(work_ + "/worker.log");
  return text.ok() ? *text : "";
}

v1::JobSpec SmallSpec(int64_t ranks) {
  const auto outcome = ReadSpec(R"(
name: small
model: {path: base-4m}
data: {train: [text/train.jsonl.xz], validation: [text/validation.jsonl.xz], sequence_length: 128}
attention: {window: {size: 16}}
stages:
  - attention_transfer: {steps: 10, batch_size: 4}
parallelism: {data: )" + std::to_string(ranks) +
                                    "}\n",
                                kSource + "/examples");
  EXPECT_TRUE(outcome.violations.empty()) << ViolationsToText(outcome.violations);
  return Resolve(outcome.parsed.spec);
}

std::string TemporaryFolder() {
  struct Folders {
    std::vector<std::string> paths;
    ~Folders() {
      for (const auto& path : paths) static_cast<void>(RemoveTree(path));
    }
  };
  static Folders folders;
  char path[] = "/tmp/tandem-agent-test-XXXXXX";
  if (mkdtemp(path) == nullptr) std::abort();
  folders.paths.emplace_back(path);
  return path;
}

size_t CountMarked(const std::string& work) {
  return FindMarked(WorkerMark(work + "/workers/w")).size();
}

bool AwaitTrue(const std::string& what, const std::function<bool()>& holds) {
  const auto deadline = Deadline();
  while (!holds()) {
    if (std::chrono::steady_clock::now() > deadline) {
      ADD_FAILURE() << "not within " << kDeadlineSeconds << " s: " << what;
      return false;
    }
    poll(nullptr, 0, 5);
  }
  return true;
}

std::string Scrape(const std::string& work) {
  const auto text = ReadFile(work + "/workers/w/endpoints.json");
  if (!text.ok()) return "";
  const std::string endpoint = nlohmann::json::parse(*text).at("metrics");
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port =
      htons(static_cast<uint16_t>(std::stoi(endpoint.substr(endpoint.find(':') + 1))));
  inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  std::string page;
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) {
    const std::string request = "GET /metrics HTTP/1.0\r\n\r\n";
    send(fd, request.data(), request.size(), MSG_NOSIGNAL);
    char bytes[4096];
    for (ssize_t got = 0; (got = recv(fd, bytes, sizeof bytes, 0)) > 0;) {
      page.append(bytes, static_cast<size_t>(got));
    }
  }
  close(fd);
  return page;
}

}  // namespace tandem::agent
