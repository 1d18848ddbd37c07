// Following a job through a coordinator that breaks off, compacts and comes back: nothing shown
// twice, nothing missed.
#include "cli/follow.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <deque>
#include <functional>
#include <thread>

#include "base/clock.h"
#include "cli/job_text.h"

namespace tandem::cli {
namespace {

using Writer = grpc::ServerWriter<v1::WatchJobsResponse>;

// Plays one script per WatchJobs call.
class FakeJobs : public v1::JobService::Service {
 public:
  using Script = std::function<grpc::Status(int64_t start_revision, Writer& writer,
                                            grpc::ServerContext& context)>;

  grpc::Status WatchJobs(grpc::ServerContext* context, const v1::WatchJobsRequest* request,
                         Writer* writer) override {
    Script script;
    {
      MutexLock lock(mu_);
      starts_.push_back(request->start_revision());
      if (scripts_.empty()) return {grpc::StatusCode::INTERNAL, "no script is left"};
      script = scripts_.front();
      scripts_.pop_front();
    }
    return script(request->start_revision(), *writer, *context);
  }
  grpc::Status GetJob(grpc::ServerContext*, const v1::GetJobRequest*, v1::Job* job) override {
    *job = Job(v1::JOB_STATE_SUCCEEDED);
    job->set_artifact("whole");
    return grpc::Status::OK;
  }

  static v1::Job Job(v1::JobState state) {
    v1::Job job;
    job.set_name("projects/default/jobs/x");
    job.set_state(state);
    return job;
  }
  static void Send(Writer& writer, int64_t revision, v1::JobState state) {
    v1::WatchJobsResponse response;
    response.set_revision(revision);
    *response.add_jobs() = Job(state);
    writer.Write(response);
  }
  void Add(Script script) { scripts_.push_back(std::move(script)); }
  std::vector<int64_t> starts() {
    MutexLock lock(mu_);
    return starts_;
  }

 private:
  Mutex mu_;
  std::deque<Script> scripts_;
  std::vector<int64_t> starts_;
};

class FollowTest : public testing::Test {
 protected:
  void SetUp() override {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&jobs_);
    server_ = builder.BuildAndStart();
    client_ = std::make_unique<Client>("127.0.0.1:" + std::to_string(port));
  }

  FakeJobs jobs_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<Client> client_;
  FakeClock clock_;
  std::string shown_;
  ProgressPrinter progress_{false, TextStyle{}, clock_,
                            [this](const std::string& text) { shown_ += text; }};
};

TEST_F(FollowTest, GoesOnWhereItBrokeOff) {
  jobs_.Add([](int64_t, Writer& writer, grpc::ServerContext&) {
    FakeJobs::Send(writer, 5, v1::JOB_STATE_PENDING);
    FakeJobs::Send(writer, 7, v1::JOB_STATE_ADMITTED);
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "restarting");
  });
  jobs_.Add([](int64_t, Writer&, grpc::ServerContext&) {
    return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "too slow");
  });
  jobs_.Add([](int64_t, Writer&, grpc::ServerContext&) {
    return grpc::Status(grpc::StatusCode::OUT_OF_RANGE, "COMPACTED");
  });
  jobs_.Add([](int64_t, Writer& writer, grpc::ServerContext&) {
    FakeJobs::Send(writer, 90, v1::JOB_STATE_SUCCEEDED);
    return grpc::Status::OK;
  });
  Follower follower(*client_, progress_, 60'000);
  const auto job = follower.Run("x");
  ASSERT_TRUE(job.ok()) << job.status().ToString();
  EXPECT_EQ(job->artifact(), "whole") << "the final answer is the job as Get gives it";
  EXPECT_EQ(jobs_.starts(), (std::vector<int64_t>{0, 7, 7, 0}));
  EXPECT_EQ(shown_,
            "x: PENDING\nx: ADMITTED\nthe connection to the coordinator is lost; trying again\n"
            "the coordinator answers again\nx: SUCCEEDED\n");
}

TEST_F(FollowTest, AStoreThatTakesNoWritesIsSaidOnceAndWhenItIsOver) {
  jobs_.Add([](int64_t, Writer& writer, grpc::ServerContext&) {
    FakeJobs::Send(writer, 5, v1::JOB_STATE_RUNNING);
    v1::WatchJobsResponse mark;
    mark.set_revision(5);
    mark.set_store_failure("tandem.db: disk is full");
    writer.Write(mark);
    writer.Write(mark);
    return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "too slow");
  });
  jobs_.Add([](int64_t, Writer& writer, grpc::ServerContext&) {
    v1::WatchJobsResponse mark;
    mark.set_revision(5);
    mark.set_store_failure("tandem.db: disk is full");
    writer.Write(mark);
    FakeJobs::Send(writer, 6, v1::JOB_STATE_SUCCEEDED);
    return grpc::Status::OK;
  });
  Follower follower(*client_, progress_, 60'000);
  ASSERT_TRUE(follower.Run("x").ok());
  EXPECT_EQ(shown_,
            "x: RUNNING\nthe coordinator cannot write at the moment: tandem.db: disk is full; what "
            "runs goes on, and this waits\nthe coordinator can write again\nx: SUCCEEDED\n");
}

TEST_F(FollowTest, AnUnknownJobIsAnError) {
  jobs_.Add([](int64_t, Writer&, grpc::ServerContext&) {
    return grpc::Status(grpc::StatusCode::NOT_FOUND, "no job x");
  });
  Follower follower(*client_, progress_, 60'000);
  EXPECT_EQ(follower.Run("x").status().code(), Code::kNotFound);
}

TEST_F(FollowTest, StopEndsAStreamThatSaysNothing) {
  jobs_.Add([](int64_t, Writer& writer, grpc::ServerContext& context) {
    FakeJobs::Send(writer, 1, v1::JOB_STATE_RUNNING);
    while (!context.IsCancelled()) std::this_thread::yield();
    return grpc::Status::CANCELLED;
  });
  Follower follower(*client_, progress_, 60'000);
  std::thread stopper([&] {
    while (jobs_.starts().empty()) std::this_thread::yield();
    follower.Stop();
  });
  EXPECT_EQ(follower.Run("x").status().code(), Code::kCancelled);
  stopper.join();
}

}  // namespace
}  // namespace tandem::cli
