#include "base/flag_text.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <system_error>

namespace tandem {

void ReadNumberFlag(const std::string& text, const std::string& flag, const NumberRange& range,
                    int64_t& out, std::vector<std::string>& errors) {
  if (text.empty()) return;
  int64_t value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = parsed.ec == std::errc() && parsed.ptr == text.data() + text.size();
  if (whole && value >= range.low && value <= range.high) {
    out = value * range.unit;
    return;
  }
  errors.push_back(flag + " is '" + text + "'; must be a whole number in [" +
                   std::to_string(range.low) + ", " + std::to_string(range.high) + "]");
}

bool IsName(const std::string& text) {
  const auto is_plain = [](unsigned char c) { return std::isalnum(c) != 0; };
  if (text.empty() || text.size() > kMaxNameBytes || !is_plain(text.front())) return false;
  return std::ranges::all_of(
      text, [&](char c) { return is_plain(c) || c == '-' || c == '_' || c == '.'; });
}

bool SplitAddress(const std::string& address, std::string* host, int* port) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos || colon == 0) return false;
  const char* first = address.data() + colon + 1;
  const char* last = address.data() + address.size();
  const auto parsed = std::from_chars(first, last, *port);
  if (parsed.ec != std::errc() || parsed.ptr != last || *port < 0 || *port > 65535) return false;
  *host = address.substr(0, colon);
  return true;
}

bool IsLoopback(const std::string& host) {
  // 127.evil.example is a name, not an address.
  const bool numeric = host.find_first_not_of("0123456789.") == std::string::npos;
  return host == "localhost" || host == "[::1]" || (numeric && host.rfind("127.", 0) == 0);
}

void CheckServedAddress(const std::string& address, const std::string& flag,
                        std::vector<std::string>& errors) {
  std::string host;
  int port = 0;
  if (!SplitAddress(address, &host, &port)) {
    errors.push_back(flag + " is '" + address +
                     "'; must be HOST:PORT with a port in [0, 65535], as in 127.0.0.1:7600; port 0 "
                     "chooses one");
  } else if (!IsLoopback(host)) {
    errors.push_back(flag + " is '" + address +
                     "'; only loopback addresses are served, because there is no authentication "
                     "yet: use 127.0.0.1 and reach it through an SSH tunnel");
  }
}

}  // namespace tandem
