// Output: data on stdout in the format that was asked for, everything else on stderr. The only file
// that prints.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/status.h"

namespace tandem::cli {

enum class Format { kTable, kJson, kYaml, kName };

// How text for people looks; chosen once from the terminal and the environment, fixed in tests.
struct TextStyle {
  bool color = false;
  bool unicode = false;
  int width = 100;
};

// Of stdout or stderr: colour on a terminal unless NO_COLOR is set; block characters where the
// locale is UTF-8.
TextStyle StyleOfStdout();
TextStyle StyleOfStderr();
bool StderrIsTerminal();

void PrintOut(const std::string& text);  // stdout, flushed
void PrintErr(const std::string& text);  // stderr
// "tandem: message" on stderr.
void PrintError(const std::string& message);
// Prints the error and returns its exit code.
int Fail(const Status& status);

// JSON (two spaces) or YAML, with a newline. Not for kTable and kName.
std::string Rendered(const nlohmann::json& value, Format format);

// Columns as wide as their widest cell, two spaces apart; the first row is the head. No trailing
// spaces.
std::string Table(const std::vector<std::vector<std::string>>& rows);

enum class Colour { kNone, kGreen, kYellow, kRed, kBold };
std::string Coloured(const std::string& text, Colour colour, const TextStyle& style);

// A bar of `cells` characters, filled to `share` (clamped to 0..1).
std::string Bar(double share, int cells, const TextStyle& style);

// 3661 -> "1:01:01", 75 -> "1:15".
std::string Duration(double seconds);
// 12345.6 -> "12,346".
std::string Grouped(double number);
// Fixed decimals; "-" for NaN and infinities.
std::string Fixed(double number, int decimals);

}  // namespace tandem::cli
