// ValidUtf8: text that may be put into a protobuf string. Pure.
#pragma once

#include <string>
#include <string_view>

namespace tandem::service {

// The text with every byte that is no part of a UTF-8 character replaced by U+FFFD (RFC 3629).
std::string ValidUtf8(std::string_view text);

}  // namespace tandem::service
