#include "cli/sweep_file.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <utility>

#include "spec/nearest.h"
#include "spec/tree_reader.h"
#include "spec/yaml_tree.h"

namespace tandem::cli {
namespace {

using Kind = YamlNode::Kind;

YamlEntry* Find(YamlNode& map, const std::string& key) {
  const auto found = std::ranges::find(map.entries, key, &YamlEntry::key);
  return found == map.entries.end() ? nullptr : &*found;
}

// Puts the fields of `over` over those of `base`.
void Merge(YamlNode& base, const YamlNode& over) {
  for (const YamlEntry& entry : over.entries) {
    YamlEntry* old = Find(base, entry.key);
    if (old != nullptr && entry.value.kind == Kind::kNull) {
      std::erase_if(base.entries, [&](const YamlEntry& e) { return e.key == entry.key; });
    } else if (old == nullptr) {
      base.entries.push_back(entry);
    } else if (old->value.kind == Kind::kMap && entry.value.kind == Kind::kMap) {
      Merge(old->value, entry.value);
    } else {
      old->line = entry.line;
      old->value = entry.value;
    }
  }
}

void Remove(YamlNode& map, const std::string& key) {
  std::erase_if(map.entries, [&](const YamlEntry& entry) { return entry.key == key; });
}

YamlNode TextNode(const std::string& text, int line, bool quoted = true) {
  YamlNode node;
  node.kind = Kind::kScalar;
  node.scalar = text;
  node.quoted = quoted;
  node.line = line;
  return node;
}

// A whole number of a group, or 0.
int64_t Whole(YamlNode& tree, const char* group, const char* key) {
  YamlEntry* found = Find(tree, group);
  YamlEntry* entry = found == nullptr ? nullptr : Find(found->value, key);
  return entry == nullptr ? 0 : std::atoll(entry->value.scalar.c_str());
}

// The trained control of the base: the window alone, trained on as many tokens as both stages
// together, on the same data. What belongs to conversions goes.
YamlNode ControlTree(YamlNode tree, int line) {
  const int64_t transfer = Whole(tree, "attention_transfer", "steps");
  const int64_t finetuned = Whole(tree, "finetune", "steps");
  const bool same_batch =
      Whole(tree, "attention_transfer", "batch_size") == Whole(tree, "finetune", "batch_size");
  if (transfer > 0 && finetuned > 0 && same_batch)
    Find(Find(tree, "finetune")->value, "steps")->value =
        TextNode(std::to_string(transfer + finetuned), line, false);
  for (const char* key : {"name", "recipe", "stages", "attention_transfer"}) Remove(tree, key);
  if (YamlEntry* finetune = Find(tree, "finetune")) {
    for (const char* key :
         {"mode", "objective", "distill_weight", "train_maps", "train_factor", "early_stop", "ssd"})
      Remove(finetune->value, key);
  }
  tree.entries.push_back({"name", line, TextNode("window-control", line)});
  tree.entries.push_back({"recipe", line, TextNode(kControlRecipe, line)});
  return tree;
}

class SweepReader {
 public:
  SweepReader(const std::string& base_dir, SweepOutcome& outcome)
      : base_dir_(base_dir), outcome_(outcome) {}

  void Read(YamlNode& root) {
    if (root.kind != Kind::kMap)
      return Refuse("a sweep file has the fields base, runs, controls", 1);
    CheckKeys(root);
    const YamlEntry* base = Find(root, "base");
    const YamlEntry* runs = Find(root, "runs");
    if (base == nullptr) Refuse("base is missing; it holds the fields that all runs share", 1);
    if (runs == nullptr)
      Refuse("runs is missing; list what is to be compared: runs: [{name: a}]", 1);
    const int control_line = ReadControls(Find(root, "controls"));
    if (base != nullptr && base->value.kind != Kind::kMap)
      Refuse("base must be a group of fields, those of a job file", base->line);
    if (runs != nullptr && (runs->value.kind != Kind::kList || runs->value.items.empty()))
      Refuse("runs must be a list of groups of fields, each with a name", runs->line);
    if (!outcome_.violations.empty()) return;
    ReadRuns(base->value, *runs, control_line);
  }

 private:
  void Refuse(std::string message, int line) {
    outcome_.violations.push_back({"", std::move(message), line});
  }

  void CheckKeys(const YamlNode& root) {
    const std::vector<std::string> known = {"base", "runs", "controls"};
    std::vector<std::string> seen;
    for (const YamlEntry& entry : root.entries) {
      const std::string near = NearestName(entry.key, known);
      if (std::ranges::find(known, entry.key) == known.end()) {
        Refuse(entry.key + " is not a field of a sweep file; " +
                   (near.empty() ? "it has base, runs and controls; fields of jobs go below base"
                                 : "did you mean " + near + "?"),
               entry.line);
      } else if (std::ranges::find(seen, entry.key) != seen.end()) {
        Refuse(entry.key + " is given twice", entry.line);
      }
      seen.push_back(entry.key);
    }
  }

  // The line of `controls: trained`, or 0.
  int ReadControls(const YamlEntry* controls) {
    if (controls == nullptr || controls->value.scalar == "none") return 0;
    if (controls->value.kind == Kind::kScalar && controls->value.scalar == "trained")
      return controls->line;
    Refuse("controls is \"" + controls->value.scalar + "\"; must be none or trained",
           controls->line);
    return 0;
  }

  void ReadRuns(const YamlNode& base, const YamlEntry& runs, int control_line) {
    const auto& items = runs.value.items;
    if (items.size() > kMaxSweepRuns) {
      return Refuse("runs has " + std::to_string(items.size()) + " items; at most " +
                        std::to_string(kMaxSweepRuns),
                    runs.line);
    }
    std::vector<RunFaults> faults;
    for (const YamlNode& item : items) ReadRun(base, item, faults);
    CheckNames();
    if (control_line > 0) {
      SweepRun control{"window-control", {}};
      AddSpec(control, ControlTree(base, control_line), faults);
      CheckControlIsTaken(control_line);
      outcome_.sweep.control = std::move(control);
    }
    for (Violation& violation : MergedFaults(faults))
      outcome_.violations.push_back(std::move(violation));
  }

  void ReadRun(const YamlNode& base, const YamlNode& item, std::vector<RunFaults>& faults) {
    if (item.kind != Kind::kMap)
      return Refuse("a run must be a group of fields: {name: a, recipe: ssd}", item.line);
    YamlNode over = item;
    const YamlEntry* name = Find(over, "name");
    if (name == nullptr || name->value.kind != Kind::kScalar || name->value.scalar.empty())
      return Refuse("this run has no name; each has one of its own", item.line);
    SweepRun run{name->value.scalar, {}};
    lines_.emplace_back(run.name, name->line);
    YamlNode tree = base;
    Merge(tree, over);
    AddSpec(run, tree, faults);
    outcome_.sweep.runs.push_back(std::move(run));
  }

  void AddSpec(SweepRun& run, const YamlNode& tree, std::vector<RunFaults>& faults) {
    ParseOutcome parsed = ReadSpecTree(tree, base_dir_);
    run.parsed = std::move(parsed.parsed);
    faults.push_back({run.name, std::move(parsed.violations)});
  }

  // Its path is known only once it has run; whether jobs take it is known now.
  void CheckControlIsTaken(int line) {
    for (const SweepRun& run : outcome_.sweep.runs) {
      v1::JobSpec spec = run.parsed.spec;
      spec.mutable_evaluate()->set_control("/report.json");
      for (const Violation& violation : Validate(spec)) {
        if (violation.field != "evaluate.control") continue;
        return Refuse("controls: " + violation.message, line);
      }
    }
  }

  void CheckNames() {
    for (size_t i = 0; i < lines_.size(); ++i) {
      for (size_t k = 0; k < i; ++k) {
        if (lines_[k].first != lines_[i].first) continue;
        Refuse("run " + lines_[i].first + " is listed twice (line " +
                   std::to_string(lines_[k].second) + "); give each its own name",
               lines_[i].second);
        break;
      }
    }
  }

  const std::string& base_dir_;
  SweepOutcome& outcome_;
  std::vector<std::pair<std::string, int>> lines_;  // name and line of each run
};

}  // namespace

std::vector<Violation> MergedFaults(const std::vector<RunFaults>& faults) {
  std::vector<Violation> merged;
  std::vector<std::vector<std::string>> runs;
  for (const auto& [run, violations] : faults) {
    for (const Violation& violation : violations) {
      const auto found = std::ranges::find_if(merged, [&](const Violation& other) {
        return other.line == violation.line && other.message == violation.message;
      });
      const auto at = static_cast<size_t>(found - merged.begin());
      if (found == merged.end()) {
        merged.push_back(violation);
        runs.emplace_back();
      }
      if (runs[at].empty() || runs[at].back() != run) runs[at].push_back(run);
    }
  }
  for (size_t i = 0; i < merged.size(); ++i) {
    if (runs[i].size() == faults.size() && faults.size() > 1) continue;
    std::string names;
    for (const auto& run : runs[i]) names += (names.empty() ? "" : ", ") + run;
    merged[i].message = (runs[i].size() == 1 ? "run " : "runs ") + names + ": " + merged[i].message;
  }
  std::ranges::stable_sort(merged, {}, &Violation::line);
  return merged;
}

bool IsSweep(const std::string& text) {
  const YamlTree tree = ReadJobTree(text);
  return std::ranges::any_of(tree.root.entries,
                             [](const YamlEntry& entry) { return entry.key == "runs"; });
}

SweepOutcome ReadSweep(const std::string& text, const std::string& base_dir) {
  SweepOutcome outcome;
  YamlTree tree = ReadJobTree(text);
  outcome.violations = std::move(tree.violations);
  if (!tree.readable || !outcome.violations.empty()) return outcome;
  SweepReader(base_dir, outcome).Read(tree.root);
  std::ranges::stable_sort(outcome.violations, {}, &Violation::line);
  return outcome;
}

}  // namespace tandem::cli
