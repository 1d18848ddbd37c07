// When a checkpoint is due by steps and by the clock, and what is said and kept around saving one.
#include "worker/rank/checkpoint_keeper.h"

#include <ATen/ops/full.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/unit/model_files/folder.h"

namespace tandem {
namespace {

// The agent's end of the socket; it must be open as long as the channel.
class AgentSocket {
 public:
  explicit AgentSocket(std::string path) : path_(std::move(path)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path_.c_str(), path_.size() + 1);
    listening_ = socket(AF_UNIX, SOCK_STREAM, 0);
    EXPECT_EQ(bind(listening_, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(listen(listening_, 1), 0);
  }
  ~AgentSocket() { close(listening_); }
  AgentSocket(const AgentSocket&) = delete;
  AgentSocket& operator=(const AgentSocket&) = delete;

  const std::string& path() const { return path_; }
  void Accept() { connected_ = accept(listening_, nullptr, nullptr); }
  // To the end: the channel has been destroyed.
  std::vector<RankMessage> ReadAll() {
    std::string text;
    char bytes[4096];
    for (ssize_t got = 0; (got = read(connected_, bytes, sizeof bytes)) > 0;)
      text.append(bytes, static_cast<size_t>(got));
    close(connected_);
    std::vector<RankMessage> messages;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) messages.push_back(*DecodeRankMessage(line));
    return messages;
  }

 private:
  const std::string path_;
  int listening_ = -1;
  int connected_ = -1;
};

class CheckpointKeeperTest : public testing::Test {
 protected:
  CheckpointKeeperTest() {
    plan_.job_folder = job_.path();
    plan_.job_uid = "uid-1";
    plan_.epoch = 2;
    plan_.checkpoint_every_steps = 5;
    plan_.checkpoint_every_seconds = 30;
    plan_.checkpoint_keep = 2;
    channel_ = EventChannel::Connect(agent_.path(), plan_.epoch, 0).value();
    agent_.Accept();
  }

  CheckpointKeeper Keeper(bool is_writer = true) {
    return {plan_, "base", is_writer, *channel_, clock_};
  }
  static CheckpointCursor At(int64_t step) { return {1, "finetune", step - 100, step}; }
  static NamedTensors State() { return {{"parameter", at::full({300}, 0.5, at::kFloat)}}; }
  std::vector<std::string> Steps() { return *ListFolder(job_.File("checkpoints/e2")); }
  // What the agent was told, the hello left out.
  std::vector<RankMessage> Told() {
    channel_.reset();
    std::vector<RankMessage> messages = agent_.ReadAll();
    EXPECT_EQ(messages.at(0).type, "hello");
    messages.erase(messages.begin());
    return messages;
  }

  TestFolder job_;
  AgentSocket agent_{job_.File("s")};
  Plan plan_;
  FakeClock clock_;
  std::unique_ptr<EventChannel> channel_;
};

TEST_F(CheckpointKeeperTest, IsDueByStepsOnEveryRankAlike) {
  const CheckpointKeeper writer = Keeper();
  const CheckpointKeeper other = Keeper(/*is_writer=*/false);
  for (int64_t step = 1; step <= 20; ++step) {
    EXPECT_EQ(writer.DueBySteps(step), step % 5 == 0) << step;
    EXPECT_EQ(other.DueBySteps(step), writer.DueBySteps(step)) << step;
  }
  plan_.checkpoint_every_steps = 0;
  EXPECT_FALSE(writer.DueBySteps(5)) << "0 turns it off";
}

TEST_F(CheckpointKeeperTest, IsDueByTheClockSinceTheLastOne) {
  CheckpointKeeper keeper = Keeper();
  clock_.AdvanceMs(29'999);
  EXPECT_FALSE(keeper.DueByTime());
  clock_.AdvanceMs(1);
  EXPECT_TRUE(keeper.DueByTime());
  ASSERT_TRUE(keeper.Save(At(105), State()));
  EXPECT_FALSE(keeper.DueByTime());
  clock_.AdvanceMs(30'000);
  EXPECT_TRUE(keeper.DueByTime());
  plan_.checkpoint_every_seconds = 0;
  EXPECT_FALSE(keeper.DueByTime()) << "0 turns it off";
}

TEST_F(CheckpointKeeperTest, OnlyTheWriterWritesAndAllNoteTheTime) {
  CheckpointKeeper other = Keeper(/*is_writer=*/false);
  clock_.AdvanceMs(30'000);
  ASSERT_TRUE(other.Save(At(105), State()));
  EXPECT_FALSE(other.DueByTime());
  EXPECT_FALSE(PathExists(job_.File("checkpoints")));
  EXPECT_TRUE(Told().empty());
}

TEST_F(CheckpointKeeperTest, ReportsEachStepOnceAndKeepsTheNewest) {
  CheckpointKeeper keeper = Keeper();
  std::vector<SavedCheckpoint> saved;
  for (const int64_t step : {105, 105, 110, 115}) saved.push_back(*keeper.Save(At(step), State()));
  EXPECT_EQ(saved[1].folder, saved[0].folder) << "saved already";
  EXPECT_EQ(Steps(), (std::vector<std::string>{"step-000000000110", "step-000000000115"}));
  const auto manifest = VerifyCheckpoint(saved[3].folder);
  ASSERT_TRUE(manifest.ok()) << manifest.status().ToString();
  EXPECT_EQ(manifest->parent, "e2/step-000000000110");

  const std::vector<RankMessage> told = Told();
  ASSERT_EQ(told.size(), 3u);
  EXPECT_EQ(told[2].type, "checkpoint");
  EXPECT_EQ(told[2].stage, "finetune");
  EXPECT_EQ(told[2].step, 15) << "of the stage";
  const auto data = nlohmann::json::parse(told[2].data);
  EXPECT_EQ(data["directory"], saved[3].folder);
  EXPECT_EQ(data["manifest_sha256"], saved[3].manifest_sha256);
  EXPECT_EQ(data["bytes"], saved[3].bytes);
  EXPECT_EQ(data["global_step"], 115);
}

// Files may not grow over 900 bytes: what a full disk looks like.
TEST_F(CheckpointKeeperTest, AFullDiskIsReportedAndTriedAgainAtTheNext) {
  CheckpointKeeper keeper = Keeper();
  ASSERT_TRUE(keeper.Save(At(105), State()));
  signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit full{900, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &full), 0);
  clock_.AdvanceMs(30'000);
  const auto failed = keeper.Save(At(110), State());
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_FALSE(failed);
  EXPECT_FALSE(keeper.DueByTime()) << "not at every step from now on";
  EXPECT_EQ(Steps(), std::vector<std::string>{"step-000000000105"}) << "the older one is in force";
  ASSERT_TRUE(keeper.Save(At(115), State()));

  const std::vector<RankMessage> told = Told();
  ASSERT_EQ(told.size(), 3u);
  EXPECT_EQ(told[1].type + " " + told[1].kind, "event checkpoint_failed");
  EXPECT_NE(told[1].text.find("older checkpoints stay in force"), std::string::npos)
      << told[1].text;
  EXPECT_EQ(told[2].type, "checkpoint");
}

}  // namespace
}  // namespace tandem
