// PageToken: where a list goes on, in a form that a client can only hand back.
//
// A token is "position|digest of the filter" signed with HMAC-SHA256 (RFC 2104) under a key that
// the coordinator keeps beside its database, so it survives a restart and cannot be made up. A
// position is an order key, never an offset: rows that come and go meanwhile do not make the list
// skip or repeat. Immutable; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace tandem::service {

class PageTokens {
 public:
  // key: 16 bytes or more, secret.
  explicit PageTokens(std::string key);
  // The key in `<state_folder>/page-token.key`, made on first use.
  static Result<PageTokens> FromStateFolder(const std::string& state_folder);

  // position: the order key of the last row given out. filter: what the list was asked for, in any
  // fixed spelling.
  std::string Sign(int64_t position, std::string_view filter) const;
  // InvalidArgument when the token was altered, cut, or made for another filter.
  Result<int64_t> Open(std::string_view token, std::string_view filter) const;

 private:
  std::string key_;
};

// HMAC-SHA256 in lower-case hex.
std::string HmacSha256Hex(std::string_view key, std::string_view message);

}  // namespace tandem::service
