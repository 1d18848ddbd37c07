// Stands in for tandem-rank in the agent's tests: speaks the socket's protocol and does what the
// job's name says.
//
//   ok, no-report          trains one stage, exports (or forgets to), leaves with 0
//   train                  steps until it is told to stop; then a checkpoint and code 15
//   chatty                 train, after 4 MiB on stderr
//   hang                   says hello and nothing more, whatever it is told
//   code-N-KIND            says `fatal` of that kind ("none": nothing), leaves with code N
//   daemon                 leaves a grandchild in a session of its own behind, then code 14
//   former-epoch           says hello with the epoch before
//   silent                 leaves with code 9 before its hello
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "base/files.h"
#include "worker/plan/messages.h"
#include "worker/plan/plan.h"

namespace tandem {
namespace {

class Rank {
 public:
  explicit Rank(Plan plan) : plan_(std::move(plan)) {
    const char* number = std::getenv("OMPI_COMM_WORLD_RANK");
    rank_ = number == nullptr ? 0 : std::atoi(number);
    RedirectOutput();
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, plan_.socket.c_str(), sizeof address.sun_path - 1);
    fd_ = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) std::abort();
  }

  int Run() {
    const std::string what = plan_.job_name.substr(plan_.job_name.rfind('/') + 1);
    if (what == "silent") return 9;
    Hello(what == "former-epoch" ? plan_.epoch - 1 : plan_.epoch);
    if (what == "former-epoch") return AwaitKill();
    if (what == "hang") return Hang();
    if (what == "daemon") return LeaveDaemon();
    if (what.rfind("code-", 0) == 0) return LeaveWithCode(what.substr(5));
    if (what == "chatty") Chat();
    return what == "train" || what == "chatty" ? TrainUntilStopped()
                                               : TrainAndExport(what == "no-report");
  }

 private:
  void RedirectOutput() const {
    for (const auto& [fd, end] : {std::pair{1, ".out"}, std::pair{2, ".err"}}) {
      const std::string path = plan_.attempt_folder + "/rank-" + std::to_string(rank_) + end;
      const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
      dup2(file, fd);
      close(file);
    }
    std::printf("rank %d of epoch %ld\n", rank_, static_cast<long>(plan_.epoch));
    std::fflush(stdout);
  }

  void Send(RankMessage message) {
    if (message.epoch == 0) message.epoch = plan_.epoch;
    message.rank = rank_;
    message.seq = ++seq_;
    const std::string line = EncodeRankMessage(message);
    if (send(fd_, line.data(), line.size(), MSG_NOSIGNAL) < 0) _exit(12);
  }

  void Hello(int64_t epoch) {
    RankMessage hello;
    hello.type = "hello";
    hello.epoch = epoch;
    hello.pid = getpid();
    Send(hello);
  }

  // The next line, or "" after wait_ms; the end of the connection ends the process, as in a real
  // rank.
  std::string NextLine(int wait_ms) {
    for (;;) {
      const size_t end = buffer_.find('\n');
      if (end != std::string::npos) {
        const std::string line = buffer_.substr(0, end);
        buffer_.erase(0, end + 1);
        return line;
      }
      pollfd waiting{fd_, POLLIN, 0};
      if (poll(&waiting, 1, wait_ms) <= 0) return "";
      char bytes[4096];
      const ssize_t got = recv(fd_, bytes, sizeof bytes, 0);
      if (got <= 0) _exit(15);
      buffer_.append(bytes, static_cast<size_t>(got));
    }
  }

  static void Chat() {
    const std::string line(1023, 'x');
    for (int i = 0; i < 4096; ++i) std::fprintf(stderr, "%s\n", line.c_str());
  }

  static int Hang() {
    for (;;) poll(nullptr, 0, 1000);
  }

  int AwaitKill() {
    const auto message = DecodeAgentMessage(NextLine(10'000));
    const bool killed = message.ok() && message->type == "kill";
    std::fprintf(stderr, killed ? "told to end\n" : "expected a kill\n");
    return 14;
  }

  int LeaveDaemon() {
    if (fork() == 0) {
      setsid();
      close(fd_);
      if (fork() == 0) Hang();
      _exit(0);
    }
    return 14;
  }

  int LeaveWithCode(const std::string& text) {
    const size_t dash = text.find('-');
    RankMessage fatal;
    fatal.type = "fatal";
    fatal.kind = text.substr(dash + 1);
    fatal.text = "it is " + fatal.kind;
    if (fatal.kind != "none") Send(fatal);
    std::fprintf(stderr, "last words\n");
    return std::atoi(text.c_str());
  }

  RankMessage AtStep(const char* type, int64_t step) const {
    RankMessage message;
    message.type = type;
    message.stage = "attention_transfer";
    message.step = step;
    message.steps = 1000;
    message.metrics = {{"loss", 0.5}, {"tokens_per_second", 100}, {"step_seconds", 0.25}};
    return message;
  }

  void Checkpoint(int64_t step) {
    RankMessage message = AtStep("checkpoint", step);
    const std::string folder = plan_.job_folder + "/checkpoints/e" + std::to_string(plan_.epoch);
    message.data = R"({"directory":")" + folder + R"(","manifest_sha256":"ab","bytes":12})";
    Send(message);
  }

  int TrainUntilStopped() {
    for (int64_t step = 1;; ++step) {
      Send(AtStep("progress", step));
      const std::string line = NextLine(20);
      if (line.empty()) continue;
      const auto message = DecodeAgentMessage(line);
      if (!message.ok() || message->type != "action") continue;
      if (rank_ != 0)
        continue;  // real ranks leave together; here the first one's end ends the gang
      Checkpoint(step);
      return 15;
    }
  }

  int TrainAndExport(bool forget_report) {
    RankMessage started = AtStep("event", 0);
    started.kind = "stage_started";
    Send(started);
    Send(AtStep("progress", 5));
    Checkpoint(6);
    RankMessage committed = AtStep("event", 1000);
    committed.kind = "stage_committed";
    committed.data = R"({"output_sha256":"cd"})";
    Send(committed);
    if (rank_ != 0 || forget_report) return 0;
    const std::string artifacts = plan_.job_folder + "/artifacts";
    Check(MakeFolders(artifacts + "/model"));
    Check(WriteFileDurably(artifacts + "/model/config.json", "{}"));
    Check(WriteFileDurably(
        artifacts + "/report.json",
        R"({"version":1,"verdict":"balanced","linear_capability":0.8,"beyond_window":null,
  "components":{"softmax":{"loss":2.5,"recovered":1},"none":{"loss":9,"recovered":null}},
  "passkey":[{"distance":16,"accuracy":{"softmax":1,"hybrid":null}}],"linear_mass":[[0.5]],"seconds":2})"));
    RankMessage report;
    report.type = "event";
    report.kind = "report";
    Send(report);
    return 0;
  }

  static void Check(const Status& status) {
    if (!status.ok()) std::abort();
  }

  const Plan plan_;
  int rank_ = 0;
  int fd_ = -1;
  int64_t seq_ = 0;
  std::string buffer_;
};

}  // namespace
}  // namespace tandem

int main(int argc, char** argv) {
  if (argc != 3 || std::strcmp(argv[1], "--plan") != 0) return 10;
  const auto text = tandem::ReadFile(argv[2]);
  if (!text.ok()) return 10;
  auto plan = tandem::PlanFromJson(*text);
  if (!plan.ok()) return 10;
  return tandem::Rank(std::move(*plan)).Run();
}
