// A job file's text -> spec and everything that is wrong with it, in the order of its lines.
#include <algorithm>
#include <utility>

#include "spec/spec.h"
#include "spec/tree_reader.h"

namespace tandem {
namespace {

// Strict UTF-8: no overlong forms, surrogates or bytes above U+10FFFF. Returns the first bad line,
// or 0.
int FirstLineThatIsNotUtf8(const std::string& text) {
  int line = 1;
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    if (lead == '\n') ++line;
    const size_t size = lead < 0x80                   ? 1
                        : lead >= 0xC2 && lead < 0xE0 ? 2
                        : (lead & 0xF0) == 0xE0       ? 3
                        : lead >= 0xF0 && lead < 0xF5 ? 4
                                                      : 0;
    if (size == 0 || i + size > text.size()) return line;
    uint32_t code = size == 1 ? lead : lead & (0xFFU >> (size + 1));
    for (size_t k = 1; k < size; ++k) {
      const auto next = static_cast<unsigned char>(text[i + k]);
      if ((next & 0xC0) != 0x80) return line;
      code = (code << 6) | (next & 0x3F);
    }
    const bool overlong = (size == 3 && code < 0x800) || (size == 4 && code < 0x10000);
    if (overlong || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return line;
    i += size;
  }
  return 0;
}

// True where `field` lies at, below or above something that could not be read.
bool IsCovered(const std::string& field, const std::vector<std::string>& unreadable) {
  return std::ranges::any_of(unreadable, [&](const std::string& other) {
    const auto& longer = field.size() >= other.size() ? field : other;
    const auto& shorter = field.size() >= other.size() ? other : field;
    if (!longer.starts_with(shorter)) return false;
    if (longer.size() == shorter.size()) return true;
    return longer[shorter.size()] == '.' || longer[shorter.size()] == '[';
  });
}

// Returns the fields that could not be read.
std::vector<std::string> ReadText(const std::string& text, const std::string& base_dir,
                                  ParseOutcome& outcome) {
  YamlTree tree = ReadJobTree(text);
  outcome.violations = std::move(tree.violations);
  if (!tree.readable || tree.root.kind == YamlNode::Kind::kRefused) return {};
  return ReadTree(tree.root, base_dir, outcome);
}

// Adds what Validate finds, but for fields that could not be read.
ParseOutcome Judged(ParseOutcome outcome, const std::vector<std::string>& unreadable) {
  const auto& lines = outcome.parsed.lines;
  // Nothing was read: saying that everything is missing would bury the reason.
  if (lines.empty() && !outcome.violations.empty()) return outcome;
  for (auto& violation : Validate(outcome.parsed.spec)) {
    const bool has_bad_stages =
        violation.field == "recipe" && lines.contains("stages") && !lines.contains("recipe");
    if (IsCovered(violation.field, unreadable) || has_bad_stages) continue;
    violation.line = LineOfField(violation.field, lines);
    outcome.violations.push_back(std::move(violation));
  }
  std::ranges::stable_sort(outcome.violations, {}, &Violation::line);
  return outcome;
}

}  // namespace

YamlTree ReadJobTree(const std::string& text) {
  YamlTree tree;
  if (text.size() > kMaxSpecBytes) {
    tree.violations.push_back({"", "the job file has " + std::to_string(text.size()) +
                                       " bytes; at most " + std::to_string(kMaxSpecBytes) +
                                       " are read"});
    return tree;
  }
  if (const int line = FirstLineThatIsNotUtf8(text); line != 0) {
    tree.violations.push_back({"", "the job file is not UTF-8 text; save it as UTF-8", line});
    return tree;
  }
  return ReadYamlTree(text);
}

ParseOutcome ParseYaml(const std::string& text, const std::string& base_dir) {
  ParseOutcome outcome;
  ReadText(text, base_dir, outcome);
  std::ranges::stable_sort(outcome.violations, {}, &Violation::line);
  return outcome;
}

ParseOutcome ReadSpec(const std::string& text, const std::string& base_dir) {
  ParseOutcome outcome;
  const auto unreadable = ReadText(text, base_dir, outcome);
  return Judged(std::move(outcome), unreadable);
}

ParseOutcome ReadSpecTree(const YamlNode& root, const std::string& base_dir) {
  ParseOutcome outcome;
  const auto unreadable = ReadTree(root, base_dir, outcome);
  return Judged(std::move(outcome), unreadable);
}

int LineOfField(std::string field, const std::map<std::string, int>& lines) {
  while (!field.empty()) {
    if (const auto found = lines.find(field); found != lines.end()) return found->second;
    const size_t cut = field.find_last_of(".[");
    field.resize(cut == std::string::npos ? 0 : cut);
  }
  return 0;
}

std::string ViolationsToText(const std::vector<Violation>& violations) {
  std::string text;
  for (const auto& violation : violations) {
    if (violation.line > 0) text += "line " + std::to_string(violation.line) + ": ";
    text += violation.message + "\n";
  }
  return text;
}

}  // namespace tandem
