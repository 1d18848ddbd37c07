#include "base/log.h"

#include <unistd.h>

#include <cmath>
#include <cstdio>

#include "base/clock.h"

namespace tandem {
namespace {

// Length of the valid UTF-8 sequence at text[i], or 0.
size_t Utf8Length(std::string_view text, size_t i) {
  const auto byte = static_cast<unsigned char>(text[i]);
  size_t length = byte < 0x80                   ? 1
                  : byte >= 0xC2 && byte < 0xE0 ? 2
                  : byte >= 0xE0 && byte < 0xF0 ? 3
                  : byte >= 0xF0 && byte < 0xF5 ? 4
                                                : 0;
  if (length == 0 || i + length > text.size()) return 0;
  for (size_t k = 1; k < length; ++k) {
    if ((static_cast<unsigned char>(text[i + k]) & 0xC0) != 0x80) return 0;
  }
  return length;
}

}  // namespace

std::string JsonQuote(std::string_view text) {
  std::string out = "\"";
  for (size_t i = 0; i < text.size();) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte == '"' || byte == '\\') {
      out += '\\';
      out += static_cast<char>(byte);
      ++i;
    } else if (byte == '\n') {
      out += "\\n";
      ++i;
    } else if (byte < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", byte);
      out += escape;
      ++i;
    } else if (const size_t length = Utf8Length(text, i); length > 0) {
      out.append(text, i, length);
      i += length;
    } else {
      out += "\xEF\xBF\xBD";
      ++i;
    }
  }
  return out + "\"";
}

LogValue::LogValue(std::string_view text) : json_(JsonQuote(text)) {}

LogValue::LogValue(double number) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", number);
  json_ = std::isfinite(number) ? text : "null";
}

void Log(LogLevel level, const char* event, LogFields fields) {
  static constexpr const char* kNames[] = {"info", "warning", "error"};
  std::string line = std::string("{\"time\":\"") + FormatUtc(Clock::System().WallMs()).text +
                     "\",\"level\":\"" + kNames[static_cast<int>(level)] + "\",\"event\":\"" +
                     event + "\"";
  for (const auto& [name, value] : fields) line += std::string(",\"") + name + "\":" + value.json();
  line += "}\n";
  (void)!write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace tandem
