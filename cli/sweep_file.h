// A sweep file: several jobs as one base and what each run changes in it.
//
//   base: {…the fields of a job…}     shared by all runs
//   runs: [{name: a, …}, …]           each a job: the base with these fields put over it
//   controls: none | trained          trained: one more job first, of the recipe window_control,
//                                     whose report the others are judged against; it gets the
//                                     steps of the base's two stages together
// Groups are merged field by field; anything else replaces the base's value, and a run's null takes
// the base's value away. Every job then goes through the strict spec, with the lines of the sweep
// file. Pure, any thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "spec/spec.h"

namespace tandem::cli {

inline constexpr size_t kMaxSweepRuns = 64;
inline constexpr char kControlRecipe[] = "window_control";

struct SweepRun {
  std::string name;
  ParsedSpec parsed;
};

struct SweepFile {
  std::vector<SweepRun> runs;
  std::optional<SweepRun> control;  // of `controls: trained`; runs first
};

struct SweepOutcome {
  SweepFile sweep;
  std::vector<Violation> violations;  // in the order of the lines; messages name the run
};

SweepOutcome ReadSweep(const std::string& text, const std::string& base_dir);
// A sweep given where a job was expected: its top level has `runs`.
bool IsSweep(const std::string& text);

// The faults of several runs as one list: what is the base's fault is told once, and what only some
// runs have names them.
struct RunFaults {
  std::string run;
  std::vector<Violation> violations;
};
std::vector<Violation> MergedFaults(const std::vector<RunFaults>& faults);

}  // namespace tandem::cli
