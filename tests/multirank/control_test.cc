// What an agent asks of its ranks over the socket: stop after a checkpoint, and end with the agent.
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>

#include "tests/multirank/attempt.h"
#include "worker/plan/messages.h"

namespace tandem::testing {
namespace {

// The agent's end for one rank, in the test's own thread.
class AgentEnd {
 public:
  explicit AgentEnd(const std::string& path) {
    unlink(path.c_str());
    listening_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
    EXPECT_EQ(bind(listening_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0) << path;
    EXPECT_EQ(listen(listening_, 4), 0);
  }
  ~AgentEnd() {
    HangUp();
    close(listening_);
  }
  AgentEnd(const AgentEnd&) = delete;
  AgentEnd& operator=(const AgentEnd&) = delete;

  void Accept() {
    pollfd waiting{listening_, POLLIN, 0};
    ASSERT_EQ(poll(&waiting, 1, 60'000), 1) << "no rank connected";
    rank_ = accept4(listening_, nullptr, nullptr, SOCK_CLOEXEC);
  }
  void Ask(const std::string& action) {
    AgentMessage message;
    message.type = "action";
    message.epoch = 1;
    message.action = action;
    const std::string line = EncodeAgentMessage(message);
    ASSERT_EQ(write(rank_, line.data(), line.size()), static_cast<ssize_t>(line.size()));
  }
  void HangUp() {
    if (rank_ >= 0) close(rank_);
    rank_ = -1;
  }
  // Everything up to the end of file.
  std::vector<RankMessage> ReadAll() {
    std::string text;
    char bytes[4096];
    for (ssize_t n = 0; (n = read(rank_, bytes, sizeof(bytes))) > 0;) {
      text.append(bytes, static_cast<size_t>(n));
    }
    std::vector<RankMessage> messages;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
      messages.push_back(DecodeRankMessage(line).value());
    }
    return messages;
  }

 private:
  int listening_ = -1, rank_ = -1;
};

class Control : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string name = ::testing::UnitTest::GetInstance()->current_test_info()->name();
    plan_ = SmallPlan(std::string(TANDEM_BINARY_DIR) + "/tests/multirank/" + name);
    std::filesystem::remove_all(plan_.job_folder);
    WriteTokenFolder(plan_.data.tokens);
    char folder[] = "/tmp/tandem-test-XXXXXX";  // short: a socket's path has at most 107 bytes
    folder_ = mkdtemp(folder);
    plan_.socket = folder_ + "/s";
    agent_ = std::make_unique<AgentEnd>(plan_.socket);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  Plan plan_;
  std::string folder_;
  std::unique_ptr<AgentEnd> agent_;
};

int64_t Count(const std::vector<RankMessage>& messages, const std::string& type,
              const std::string& kind = "") {
  return std::count_if(messages.begin(), messages.end(), [&](const RankMessage& m) {
    return m.type == type && (kind.empty() || m.kind == kind);
  });
}

TEST_F(Control, CheckpointStopSavesAndLeaves) {
  const pid_t mpirun = StartAttempt(plan_, 1);
  agent_->Accept();
  agent_->Ask("checkpoint_stop");
  const auto messages = agent_->ReadAll();
  EXPECT_EQ(WaitForExit(mpirun), static_cast<int>(RankExit::kStopped)) << ErrorsOf(plan_);
  ASSERT_FALSE(messages.empty());
  EXPECT_EQ(messages.front().type, "hello");
  EXPECT_EQ(Count(messages, "checkpoint"), 1);
  EXPECT_EQ(Count(messages, "event", "stage_started"), 1);
  EXPECT_EQ(Count(messages, "event", "stage_committed"), 0);
  const auto newest = FindNewestCheckpoint(plan_.job_folder, plan_.spec_sha256, 2);
  ASSERT_TRUE(newest.ok() && newest->has_value());
  EXPECT_LE(ReadCheckpointManifest(**newest).value().global_step, 2);
}

TEST_F(Control, AWholeRunTellsItsStagesInOrder) {
  const pid_t mpirun = StartAttempt(plan_, 1);
  agent_->Accept();
  const auto messages = agent_->ReadAll();
  EXPECT_EQ(WaitForExit(mpirun), 0) << ErrorsOf(plan_);
  std::string story;
  for (const RankMessage& m : messages) {
    if (m.type == "event")
      story += m.kind + ":" + m.stage + ":" + std::to_string(m.stage_index) + " ";
  }
  EXPECT_EQ(story,
            "stage_started:attention_transfer:0 stage_committed:attention_transfer:0 "
            "stage_started:finetune:1 stage_committed:finetune:1 "
            "stage_started:evaluate:2 report:evaluate:2 stage_committed:evaluate:2 "
            "stage_started:export:3 artifact:export:3 stage_committed:export:3 ");
  EXPECT_EQ(Count(messages, "checkpoint"), 6);  // steps 4, 8, 10, 12, 16, 20
  EXPECT_GE(Count(messages, "progress"), 1);
}

TEST_F(Control, ARankWhoseAgentIsGoneLeavesAtOnce) {
  plan_.stages[0].steps = 100'000;
  const pid_t mpirun = StartAttempt(plan_, 1);
  agent_->Accept();
  agent_->HangUp();
  EXPECT_EQ(WaitForExit(mpirun), static_cast<int>(RankExit::kStopped)) << ErrorsOf(plan_);
}

TEST_F(Control, WithoutItsAgentARankDoesNotStart) {
  plan_.socket = folder_ + "/nobody";
  EXPECT_EQ(WaitForExit(StartAttempt(plan_, 1)), static_cast<int>(RankExit::kStopped));
}

}  // namespace
}  // namespace tandem::testing
