#include "cli/output.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "base/log.h"
#include "cli/client.h"

namespace tandem::cli {
namespace {

using nlohmann::json;

bool IsUtf8Locale() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const char* value = std::getenv(name);
    if (value == nullptr || *value == '\0') continue;
    const std::string locale(value);
    return locale.find("UTF-8") != std::string::npos || locale.find("utf8") != std::string::npos;
  }
  return false;
}

TextStyle StyleOf(int descriptor) {
  TextStyle style;
  const bool terminal = isatty(descriptor) == 1;
  const char* no_color = std::getenv("NO_COLOR");
  style.color = terminal && (no_color == nullptr || *no_color == '\0');
  style.unicode = IsUtf8Locale();
  winsize size{};
  if (terminal && ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
    style.width = size.ws_col;
  return style;
}

// Characters, not bytes: bars and names may be UTF-8.
size_t Width(const std::string& text) {
  return static_cast<size_t>(
      std::ranges::count_if(text, [](char c) { return (c & 0xC0) != 0x80; }));
}

void AppendYaml(const json& value, const std::string& indent, std::string& yaml);

std::string YamlScalar(const json& value) {
  if (value.is_structured()) return value.is_array() ? "[]" : "{}";
  return value.is_string() ? JsonQuote(value.get<std::string>()) : value.dump();
}

void AppendYaml(const json& value, const std::string& indent, std::string& yaml) {
  if (!value.is_structured() || value.empty()) {
    yaml += indent + YamlScalar(value) + "\n";
    return;
  }
  for (const auto& [key, item] : value.items()) {
    const std::string head = value.is_array() ? "-" : key + ":";
    if (!item.is_structured() || item.empty()) {
      yaml += indent + head + " " + YamlScalar(item) + "\n";
    } else {
      yaml += indent + head + "\n";
      AppendYaml(item, indent + "  ", yaml);
    }
  }
}

}  // namespace

TextStyle StyleOfStdout() {
  return StyleOf(STDOUT_FILENO);
}
TextStyle StyleOfStderr() {
  return StyleOf(STDERR_FILENO);
}
bool StderrIsTerminal() {
  return isatty(STDERR_FILENO) == 1;
}

void PrintOut(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

void PrintErr(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stderr);
}

void PrintError(const std::string& message) {
  PrintErr("tandem: " + message + "\n");
}

int Fail(const Status& status) {
  PrintError(status.message());
  return ExitCodeOf(status);
}

std::string Rendered(const json& value, Format format) {
  if (format == Format::kYaml) {
    std::string yaml;
    AppendYaml(value, "", yaml);
    return yaml;
  }
  return value.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

std::string Table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], Width(row[i]));
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      line += row[i];
      if (i + 1 < row.size()) line += std::string(widths[i] - Width(row[i]) + 2, ' ');
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

std::string Coloured(const std::string& text, Colour colour, const TextStyle& style) {
  if (!style.color || colour == Colour::kNone) return text;
  const char* code = colour == Colour::kGreen    ? "32"
                     : colour == Colour::kYellow ? "33"
                     : colour == Colour::kRed    ? "31"
                                                 : "1";
  return std::string("\x1b[") + code + "m" + text + "\x1b[0m";
}

std::string Bar(double share, int cells, const TextStyle& style) {
  const double clamped = std::isfinite(share) ? std::clamp(share, 0.0, 1.0) : 0.0;
  const int filled = static_cast<int>(std::lround(clamped * cells));
  std::string bar;
  for (int i = 0; i < cells; ++i)
    bar += i < filled ? (style.unicode ? "█" : "#") : (style.unicode ? "░" : ".");
  return bar;
}

std::string Duration(double seconds) {
  const auto total = static_cast<int64_t>(std::llround(std::clamp(seconds, 0.0, 1e9)));
  char text[32];
  const int64_t hours = total / 3600;
  const auto minutes = static_cast<int>(total / 60 % 60);
  const auto rest = static_cast<int>(total % 60);
  if (hours > 0) {
    std::snprintf(text, sizeof text, "%lld:%02d:%02d", static_cast<long long>(hours), minutes,
                  rest);
  } else {
    std::snprintf(text, sizeof text, "%d:%02d", minutes, rest);
  }
  return text;
}

std::string Grouped(double number) {
  if (!std::isfinite(number)) return "-";
  std::string digits = std::to_string(std::llround(std::clamp(number, -1e15, 1e15)));
  for (size_t at = digits.size(); at > 3 && digits[at - 4] != '-';) {
    at -= 3;
    digits.insert(at, ",");
  }
  return digits;
}

std::string Fixed(double number, int decimals) {
  if (!std::isfinite(number)) return "-";
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", decimals, number);
  return text;
}

}  // namespace tandem::cli
