#include "coordinator/service/page_token.h"

#include <sys/random.h>
#include <sys/stat.h>

#include <charconv>

#include "base/digest.h"
#include "base/files.h"

namespace tandem::service {
namespace {

constexpr size_t kBlockBytes = 64;  // of SHA-256
constexpr size_t kKeyBytes = 32;
constexpr size_t kDigestChars = 64;

int HexDigit(char c) {
  return c <= '9' ? c - '0' : c - 'a' + 10;
}

std::string BytesOfHex(std::string_view hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes.push_back(static_cast<char>(HexDigit(hex[i]) * 16 + HexDigit(hex[i + 1])));
  }
  return bytes;
}

std::string Padded(std::string key, char with) {
  key.resize(kBlockBytes, '\0');
  for (char& c : key) c = static_cast<char>(c ^ with);
  return key;
}

// Takes the same time wherever the first difference is.
bool SameBytes(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned char difference = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference = static_cast<unsigned char>(difference | (a[i] ^ b[i]));
  }
  return difference == 0;
}

std::string SignedPart(std::string_view position, std::string_view filter) {
  return std::string(position) + "|" + Sha256Hex(filter);
}

Status BadToken() {
  return InvalidArgument(
      "page_token is not one that this list returned; "
      "pass next_page_token of the previous answer unchanged, or leave it empty to start over");
}

}  // namespace

std::string HmacSha256Hex(std::string_view key, std::string_view message) {
  const std::string block =
      key.size() > kBlockBytes ? BytesOfHex(Sha256Hex(key)) : std::string(key);
  const std::string inner = Sha256Hex(Padded(block, 0x36) + std::string(message));
  return Sha256Hex(Padded(block, 0x5c) + BytesOfHex(inner));
}

PageTokens::PageTokens(std::string key) : key_(std::move(key)) {
  TANDEM_CHECK(key_.size() >= 16);
}

Result<PageTokens> PageTokens::FromStateFolder(const std::string& state_folder) {
  const std::string path = JoinPath(state_folder, "page-token.key");
  if (PathExists(path)) {
    TANDEM_ASSIGN_OR_RETURN(std::string key, ReadFile(path, 4096));
    if (key.size() == kKeyBytes) return PageTokens(std::move(key));
    return DataLoss(path + " holds " + std::to_string(key.size()) + " bytes; must be " +
                    std::to_string(kKeyBytes) + "; remove it, and open page tokens become invalid");
  }
  std::string key(kKeyBytes, '\0');
  if (getrandom(key.data(), key.size(), 0) != static_cast<ssize_t>(key.size())) {
    return ErrnoStatus("getrandom");
  }
  TANDEM_RETURN_IF_ERROR(WriteFileDurably(path, key));
  if (chmod(path.c_str(), 0600) != 0) return ErrnoStatus(path);
  return PageTokens(std::move(key));
}

std::string PageTokens::Sign(int64_t position, std::string_view filter) const {
  const std::string text = std::to_string(position);
  return HmacSha256Hex(key_, SignedPart(text, filter)) + text;
}

Result<int64_t> PageTokens::Open(std::string_view token, std::string_view filter) const {
  if (token.size() <= kDigestChars || token.size() > kDigestChars + 20) return BadToken();
  const std::string_view text = token.substr(kDigestChars);
  int64_t position = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), position);
  if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size()) return BadToken();
  if (!SameBytes(token.substr(0, kDigestChars), HmacSha256Hex(key_, SignedPart(text, filter)))) {
    return BadToken();
  }
  return position;
}

}  // namespace tandem::service
