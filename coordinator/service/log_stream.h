// LogStream: one StreamLogs call. Reads an attempt's files from its worker, chunk by chunk, and
// sends whole lines.
//
// One question to the agent is open at a time, and the next is asked once the client has taken the
// last answer, so a slow client costs one chunk of memory. Following waits for the ticker between
// rounds (LogFollowers::Wake) and moves on to the next attempt when the job does. Confined by
// turns: each step is started by the end of the one before, on whichever thread that ends.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "coordinator/service/job_board.h"
#include "coordinator/service/relay.h"
#include "coordinator/service/stream_reactor.h"

namespace tandem::service {

class LogStream;

// Streams that wait for more text.
class LogFollowers {
 public:
  void Add(std::shared_ptr<LogStream> stream);
  // Lets each of them look again. Called about twice a second.
  void Wake();
  // Ends them.
  void CloseAll(const grpc::Status& status);

 private:
  std::vector<std::shared_ptr<LogStream>> TakeAll();
  Mutex mu_;
  std::vector<std::shared_ptr<LogStream>> waiting_ TANDEM_GUARDED_BY(mu_);
};

struct LogSources {
  const JobBoard& board;
  Relay& relay;
  LogFollowers& followers;
  const Clock& clock;
};

class LogStream : public StreamReactor<grpc::ServerWriteReactor<v1::StreamLogsResponse>,
                                       v1::StreamLogsResponse> {
 public:
  LogStream(const LogSources& sources, v1::StreamLogsRequest request)
      : StreamReactor(4), sources_(sources), request_(std::move(request)) {}

  // Once, after construction: takes hold of itself, and begins or, when the request was bad, ends.
  void Start(const grpc::Status& checked);
  // A follower's next round.
  void LookAgain();

 private:
  struct File {
    int64_t offset = 0;
    bool begun = false;
    std::string partial;  // the start of a line whose end has not been written yet
  };
  void BeginRound();
  void EndBeforeTheFirst();
  void Ask(const std::string& file);
  void OnFiles(const v1::LogChunk& answer);
  void OnNothing(const Status& status);
  void OnText(const v1::LogChunk& answer);
  void NextFile();
  void EndRound();
  void OnDrained() override { NextFile(); }
  std::shared_ptr<LogStream> Self();
  // Whole lines of `file` out of what was left over and `text`; with last_chance also a line
  // without an end.
  std::string TakeLines(const std::string& name, File& file, const std::string& text,
                        bool last_chance) const;

  const LogSources sources_;
  const v1::StreamLogsRequest request_;
  v1::Job job_;           // as of the round's start
  int64_t epoch_ = 0;     // the attempt being read
  bool leaving_ = false;  // in the last round over it
  std::map<std::string, File> files_;
  std::vector<std::string> to_read_;  // of this round, last first
};

}  // namespace tandem::service
