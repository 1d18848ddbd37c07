#include "tests/scenario/script.h"

#include <sstream>

#include "base/files.h"

namespace tandem::scenario {

Result<std::vector<Block>> ReadScript(const std::string& path) {
  TANDEM_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  std::istringstream lines(text);
  std::vector<Block> blocks;
  Block block;
  bool in_expected = false;
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (in_expected && line.empty()) {
      blocks.push_back(std::exchange(block, {}));
      in_expected = false;
    } else if (in_expected) {
      block.expected += line + "\n";
    } else if (line == "----") {
      in_expected = true;
    } else if (line.empty() || line[0] == '#') {
      block.comment += line + "\n";
    } else {
      if (block.commands.empty()) block.line = number;
      block.commands.push_back(line);
    }
  }
  if (!block.commands.empty()) blocks.push_back(block);
  if (blocks.empty()) return InvalidArgument(path + " holds no commands");
  return blocks;
}

Status WriteScript(const std::string& path, const std::vector<Block>& blocks) {
  std::string text;
  for (const Block& block : blocks) {
    text += block.comment;
    for (const std::string& command : block.commands) text += command + "\n";
    text += "----\n" + block.expected + "\n";
  }
  text.pop_back();  // the empty line after the last block
  return WriteFileDurably(path, text);
}

}  // namespace tandem::scenario
