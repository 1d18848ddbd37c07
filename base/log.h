// Structured log: one JSON object per line on stderr: time, level, event, fields.
//
// State changes only; steps are metrics. info = state changed, warning = retried, error = someone must act.
// No secrets, no user text. Thread-safe; a line is written by one write(2).
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
  LogValue(std::string_view text);                                     // NOLINT(google-explicit-constructor)
  LogValue(const char* text) : LogValue(std::string_view(text)) {}     // NOLINT(google-explicit-constructor)
  LogValue(const std::string& text) : LogValue(std::string_view(text)) {}  // NOLINT(google-explicit-constructor)
  LogValue(int64_t number) : json_(std::to_string(number)) {}          // NOLINT(google-explicit-constructor)
  LogValue(uint64_t number) : json_(std::to_string(number)) {}         // NOLINT(google-explicit-constructor)
  LogValue(int number) : json_(std::to_string(number)) {}              // NOLINT(google-explicit-constructor)
  LogValue(bool value) : json_(value ? "true" : "false") {}            // NOLINT(google-explicit-constructor)
  LogValue(double number);                                             // NOLINT(google-explicit-constructor)
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
