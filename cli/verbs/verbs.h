// The verbs of `tandem`, one file each. Each adds its subcommand to the command line; parsing then
// sets Invocation::action, which main runs.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cli/interrupt.h"
#include "cli/job_file.h"
#include "cli/output.h"

namespace CLI {
class App;
}

namespace tandem::cli {

inline constexpr char kDefaultServer[] = "127.0.0.1:7600";

struct Invocation {
  std::string server = kDefaultServer;
  Format format = Format::kTable;
  Interrupts* interrupts = nullptr;
  std::vector<std::string> words;  // the command line as typed
  std::function<int()> action;
};

void AddRun(CLI::App& app, Invocation& invocation);
void AddSubmit(CLI::App& app, Invocation& invocation);
void AddValidate(CLI::App& app, Invocation& invocation);
void AddExplain(CLI::App& app, Invocation& invocation);
void AddList(CLI::App& app, Invocation& invocation);
void AddGet(CLI::App& app, Invocation& invocation);
void AddWatch(CLI::App& app, Invocation& invocation);
void AddLogs(CLI::App& app, Invocation& invocation);
void AddCancel(CLI::App& app, Invocation& invocation);
void AddReport(CLI::App& app, Invocation& invocation);
void AddWorkers(CLI::App& app, Invocation& invocation);
void AddCompare(CLI::App& app, Invocation& invocation);
void AddSweep(CLI::App& app, Invocation& invocation);
void AddGenerate(CLI::App& app, Invocation& invocation);
void AddDiagnose(CLI::App& app, Invocation& invocation);
void AddVersion(CLI::App& app, Invocation& invocation);

// A subcommand with -o, which also takes the global options behind it.
CLI::App* AddVerb(CLI::App& app, Invocation& invocation, const std::string& name,
                  const std::string& words);
// --html FILE. A place where no file can be made is refused before anything runs: a sweep writes
// its page hours later.
void AddHtml(CLI::App& verb, std::string& file, const std::string& words);
// --require-verdict.
void AddRequireVerdict(CLI::App& verb, std::string& verdict);

// --full-disk-seconds.
void AddFullDiskSeconds(CLI::App& verb, int64_t& seconds);

// All of the above, on an app with the global options.
void AddVerbs(CLI::App& app, Invocation& invocation);

// Watches a job to its end and tells the outcome; Ctrl-C detaches. Used by `watch` and `submit
// --watch`.
int WatchToEnd(Invocation& invocation, const std::string& job, const std::string& require_verdict);

// What `run` and `diagnose` do: one job in a cluster of its own below a work folder.
struct RunOptions {
  std::string file;
  std::string work = "work";
  int64_t threads = 0;
  int64_t full_disk_seconds = 60;
  std::string require_verdict;
};
int RunJob(Invocation& invocation, const RunOptions& options, JobFile file);

// The command that goes on with this job, for a hint: "tandem watch small", with --server where it
// is not the default.
std::string CommandFor(const Invocation& invocation, const std::string& verb,
                       const std::string& job_name);

// Words for a shell: quoted where needed.
std::string ShellWords(const std::vector<std::string>& words);

}  // namespace tandem::cli
