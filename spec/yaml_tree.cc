#include "spec/yaml_tree.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <optional>
#include <sstream>
#include <utility>

namespace tandem {
namespace {

constexpr size_t kMaxDepth = 64;

// A container that is still open, with the key that waits for its value.
struct Open {
  YamlNode node;
  std::optional<std::pair<std::string, int>> key;
};

class TreeBuilder : public YAML::EventHandler {
 public:
  explicit TreeBuilder(YamlTree& tree) : tree_(tree) {}

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnAnchor(const YAML::Mark& mark, const std::string& name) override {
    Refuse(mark, "anchor &" + name + " is not allowed here; write the value where it is used");
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    Refuse(mark, "an alias (*name) is not allowed here; write the value where it is used");
    Add(Node(mark, YamlNode::Kind::kRefused));
  }
  void OnNull(const YAML::Mark& mark, YAML::anchor_t) override {
    Add(Node(mark, YamlNode::Kind::kNull));
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                const std::string& value) override {
    auto node = Node(mark, YamlNode::Kind::kScalar);
    node.scalar = value;
    node.quoted = tag == "!";
    if (!IsPlainTag(tag)) RefuseTag(mark, tag);
    Add(std::move(node));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {
    Enter(mark, tag, YamlNode::Kind::kList);
  }
  void OnSequenceEnd() override { Leave(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {
    Enter(mark, tag, YamlNode::Kind::kMap);
  }
  void OnMapEnd() override { Leave(); }

 private:
  static bool IsPlainTag(const std::string& tag) { return tag.empty() || tag == "?" || tag == "!"; }
  static YamlNode Node(const YAML::Mark& mark, YamlNode::Kind kind) {
    YamlNode node;
    node.kind = kind;
    node.line = mark.line + 1;
    return node;
  }
  void Refuse(const YAML::Mark& mark, std::string message) {
    tree_.violations.push_back({"", std::move(message), mark.line + 1});
  }
  void RefuseTag(const YAML::Mark& mark, const std::string& tag) {
    Refuse(mark, "tag " + tag + " is not allowed; delete it");
  }
  void Enter(const YAML::Mark& mark, const std::string& tag, YamlNode::Kind kind) {
    if (!IsPlainTag(tag)) RefuseTag(mark, tag);
    if (open_.size() >= kMaxDepth) throw YAML::ParserException(mark, "nested too deeply");
    open_.push_back({Node(mark, kind), std::nullopt});
  }
  void Leave() {
    YamlNode node = std::move(open_.back().node);
    open_.pop_back();
    Add(std::move(node));
  }
  void Add(YamlNode node) {
    if (open_.empty()) {
      tree_.root = std::move(node);
      return;
    }
    Open& parent = open_.back();
    if (parent.node.kind == YamlNode::Kind::kList) {
      parent.node.items.push_back(std::move(node));
    } else if (!parent.key) {
      parent.key = std::pair(KeyText(node), node.line);
    } else {
      node.line = node.kind == YamlNode::Kind::kNull ? parent.key->second : node.line;
      parent.node.entries.push_back(
          {std::move(parent.key->first), parent.key->second, std::move(node)});
      parent.key.reset();
    }
  }
  std::string KeyText(const YamlNode& node) {
    if (node.kind == YamlNode::Kind::kScalar) return node.scalar;
    if (node.kind != YamlNode::Kind::kRefused) {
      tree_.violations.push_back({"", "a key must be a word", node.line});
    }
    return "";
  }

  YamlTree& tree_;
  std::vector<Open> open_;
};

// The parser's words for a tab that indents say nothing of tabs ("illegal map value"). The fault is
// at `line` (from 1), or at its end one line later.
std::optional<Violation> TabThatIndents(const std::string& text, int line) {
  std::istringstream lines(text);
  std::string each;
  for (int number = 1; number <= line && std::getline(lines, each); ++number) {
    const size_t column = each.find_first_not_of(' ');
    if (number < line - 1 || column == std::string::npos || each[column] != '\t') continue;
    return Violation{"",
                     "not valid YAML: a tab indents column " + std::to_string(column + 1) +
                         "; only spaces may indent",
                     number};
  }
  return std::nullopt;
}

void ReadDocuments(const std::string& text, YamlTree& tree) {
  std::istringstream stream(text);
  YAML::Parser parser(stream);
  TreeBuilder builder(tree);
  if (!parser.HandleNextDocument(builder)) return;
  YamlTree further;
  TreeBuilder ignored(further);
  if (parser.HandleNextDocument(ignored)) {
    tree.violations.push_back(
        {"", "a second document starts here (---); one file holds one job", further.root.line});
  }
}

}  // namespace

YamlTree ReadYamlTree(const std::string& text) {
  YamlTree tree;
  // The parser has no other way to say that a text is not YAML.
  try {
    ReadDocuments(text, tree);
    tree.readable = true;
  } catch (const YAML::Exception& error) {
    const int line = error.mark.line + 1;
    const auto tab = TabThatIndents(text, line);
    tree.violations.push_back(tab ? *tab : Violation{"", "not valid YAML: " + error.msg, line});
  }
  return tree;
}

}  // namespace tandem
