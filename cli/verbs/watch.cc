// tandem watch: follows a job to its end. Ctrl-C detaches; the job goes on.
#include <CLI/CLI.hpp>
#include <atomic>
#include <memory>

#include "cli/client.h"
#include "cli/exit_code.h"
#include "cli/follow.h"
#include "cli/outcome.h"
#include "cli/progress.h"
#include "cli/verbs/verbs.h"

namespace tandem::cli {
namespace {

constexpr int64_t kPatienceMs = 600'000;  // a coordinator may be away that long

}  // namespace

int WatchToEnd(Invocation& invocation, const std::string& job, const std::string& require_verdict) {
  Client client(invocation.server);
  ProgressPrinter progress = StderrProgress();
  Follower follower(client, progress, kPatienceMs);
  std::atomic<bool> interrupted = false;
  invocation.interrupts->Set([&](int) {
    interrupted = true;
    follower.Stop();
  });
  const auto ended = follower.Run(job);
  invocation.interrupts->Set(nullptr);
  progress.Finish();
  if (ended.ok()) {
    return TellOutcome(*ended, invocation.format, require_verdict,
                       CommandFor(invocation, "logs", ended->name()));
  }
  if (!interrupted) return Fail(ended.status());
  PrintErr("detached; the job goes on. To watch it again:  " +
           CommandFor(invocation, "watch", job) + "\n");
  return kExitInterrupted;
}

void AddWatch(CLI::App& app, Invocation& invocation) {
  const auto job = std::make_shared<std::string>();
  const auto require_verdict = std::make_shared<std::string>();
  CLI::App* verb = AddVerb(app, invocation, "watch", "Follow a job to its end");
  verb->add_option("job", *job, "Job id, full name or uid")->required()->type_name("JOB");
  AddRequireVerdict(*verb, *require_verdict);
  verb->callback([&invocation, job, require_verdict] {
    invocation.action = [&invocation, job, require_verdict] {
      return WatchToEnd(invocation, *job, *require_verdict);
    };
  });
}

}  // namespace tandem::cli
