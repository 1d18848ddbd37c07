// A YAML document as a plain tree with lines, read strictly: one document, no anchors, aliases,
// merge keys or tags.
//
// Keeps what the usual YAML tree loses: duplicate keys, quotes, and the line of everything.
// Immutable once read; confined to its reader. Never throws; yaml-cpp's exceptions end here.
#pragma once

#include <string>
#include <vector>

#include "spec/spec.h"

namespace tandem {

struct YamlEntry;

struct YamlNode {
  enum class Kind { kNull, kScalar, kList, kMap, kRefused };  // kRefused: already reported
  Kind kind = Kind::kNull;
  std::string scalar;
  bool quoted = false;
  int line = 1;  // 1-based
  std::vector<YamlNode> items;
  std::vector<YamlEntry> entries;  // in order, duplicates included
};

struct YamlEntry {
  std::string key;
  int line = 1;
  YamlNode value;
};

struct YamlTree {
  YamlNode root;
  std::vector<Violation> violations;
  bool readable = false;  // false: not YAML at all, and violations says why
};

YamlTree ReadYamlTree(const std::string& text);

}  // namespace tandem
