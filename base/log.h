// Structured log: one JSON object per line on stderr: time, level, event, fields.
//
// State changes only; steps are metrics. info = state changed, warning = retried, error = someone
// must act. No secrets, no user text. Thread-safe; a line is written by one write(2).
//   Log(LogLevel::kInfo, "attempt_started", {{"job", uid}, {"epoch", epoch}});
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

namespace tandem {

enum class LogLevel { kInfo, kWarning, kError };

// A field's value, already JSON.
class LogValue {
 public:
  // NOLINTBEGIN(google-explicit-constructor): a field is written as the value it is
  LogValue(std::string_view text);
  LogValue(const char* text) : LogValue(std::string_view(text)) {}
  LogValue(const std::string& text) : LogValue(std::string_view(text)) {}
  LogValue(int64_t number) : json_(std::to_string(number)) {}
  LogValue(uint64_t number) : json_(std::to_string(number)) {}
  LogValue(int number) : json_(std::to_string(number)) {}
  LogValue(bool value) : json_(value ? "true" : "false") {}
  LogValue(double number);
  // NOLINTEND
  const std::string& json() const { return json_; }

 private:
  std::string json_;
};

using LogFields = std::initializer_list<std::pair<const char*, LogValue>>;

// Event names are stable snake_case: people grep for them.
void Log(LogLevel level, const char* event, LogFields fields = {});

// "a \"quoted\" text" with JSON's escapes, in quotes; invalid UTF-8 becomes U+FFFD.
std::string JsonQuote(std::string_view text);

}  // namespace tandem
