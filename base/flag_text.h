// Flag texts: what the daemons' command lines share, numbers and addresses read with one wording.
//
// Numbers arrive as text, so that one run reports every bad flag and not only the first. Pure; any
// thread. Errors are appended as sentences that name flag, value and what is allowed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tandem {

// A whole number in [low, high], times `unit`, into `out`; "" leaves `out` alone.
struct NumberRange {
  int64_t low = 0, high = 0, unit = 1;
};
void ReadNumberFlag(const std::string& text, const std::string& flag, const NumberRange& range,
                    int64_t& out, std::vector<std::string>& errors);

// What workers, jobs and projects may be called: 1 to 63 letters, digits, '-', '_' and '.',
// starting with a letter or digit.
inline constexpr size_t kMaxNameBytes = 63;
bool IsName(const std::string& text);

// "127.0.0.1:7600" -> host and port; false when it is not HOST:PORT with a port in [0, 65535].
bool SplitAddress(const std::string& address, std::string* host, int* port);
// 127.0.0.0/8, [::1] or localhost.
bool IsLoopback(const std::string& host);

// An address that may be served: HOST:PORT on loopback, because there is no authentication yet.
void CheckServedAddress(const std::string& address, const std::string& flag,
                        std::vector<std::string>& errors);

}  // namespace tandem
