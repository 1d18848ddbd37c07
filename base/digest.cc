#include "base/digest.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <unistd.h>

#include <vector>

namespace tandem {

struct Sha256::Context {
  EVP_MD_CTX* evp = EVP_MD_CTX_new();
  ~Context() { EVP_MD_CTX_free(evp); }
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {
  TANDEM_CHECK(EVP_DigestInit_ex(context_->evp, EVP_sha256(), nullptr) == 1);
}
Sha256::~Sha256() = default;

void Sha256::Update(const void* bytes, size_t size) {
  TANDEM_CHECK(EVP_DigestUpdate(context_->evp, bytes, size) == 1);
}

std::string Sha256::FinishHex() {
  unsigned char raw[32];
  unsigned int size = 0;
  TANDEM_CHECK(EVP_DigestFinal_ex(context_->evp, raw, &size) == 1 && size == sizeof raw);
  static constexpr char kHex[] = "0123456789abcdef";
  std::string hex;
  hex.reserve(64);
  for (unsigned char byte : raw) {
    hex += kHex[byte >> 4];
    hex += kHex[byte & 15];
  }
  return hex;
}

std::string Sha256Hex(std::string_view bytes) {
  Sha256 hasher;
  hasher.Update(bytes);
  return hasher.FinishHex();
}

Result<std::string> Sha256OfFile(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(path);
  Sha256 hasher;
  std::vector<char> buffer(1 << 20);
  ssize_t got = 0;
  while ((got = read(fd, buffer.data(), buffer.size())) > 0)
    hasher.Update(buffer.data(), static_cast<size_t>(got));
  const Status failed = got < 0 ? ErrnoStatus(path) : Status::Ok();
  close(fd);
  if (!failed.ok()) return failed;
  return hasher.FinishHex();
}

namespace {

// Slicing by 8: about 2 GB/s, enough beside fsync.
struct Crc32cTables {
  uint32_t table[8][256];
  constexpr Crc32cTables() : table() {
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t crc = i;
      for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) ? 0x82F63B78u : 0u);
      table[0][i] = crc;
    }
    for (uint32_t i = 0; i < 256; ++i) {
      for (int k = 1; k < 8; ++k)
        table[k][i] = (table[k - 1][i] >> 8) ^ table[0][table[k - 1][i] & 255];
    }
  }
};
constexpr Crc32cTables kCrc;

}  // namespace

uint32_t Crc32c(const void* bytes, size_t size, uint32_t previous) {
  const auto* p = static_cast<const unsigned char*>(bytes);
  uint32_t crc = ~previous;
  while (size >= 8) {
    const uint32_t low = crc ^ (p[0] | p[1] << 8 | p[2] << 16 | static_cast<uint32_t>(p[3]) << 24);
    crc = kCrc.table[7][low & 255] ^ kCrc.table[6][(low >> 8) & 255] ^
          kCrc.table[5][(low >> 16) & 255] ^ kCrc.table[4][low >> 24] ^ kCrc.table[3][p[4]] ^
          kCrc.table[2][p[5]] ^ kCrc.table[1][p[6]] ^ kCrc.table[0][p[7]];
    p += 8;
    size -= 8;
  }
  while (size-- > 0) crc = (crc >> 8) ^ kCrc.table[0][(crc ^ *p++) & 255];
  return ~crc;
}

}  // namespace tandem
