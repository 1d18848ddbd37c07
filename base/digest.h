// Digests: SHA-256 names content (models, data, checkpoints), CRC32C finds flipped bits cheaply.
// Pure functions and a confined hasher. libcrypto is used in digest.cc alone.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"

namespace tandem {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  void Update(const void* bytes, size_t size);
  void Update(std::string_view text) { Update(text.data(), text.size()); }
  // Lower-case hex, 64 characters. Call once.
  std::string FinishHex();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

std::string Sha256Hex(std::string_view bytes);
// Streams the file; errors name it.
Result<std::string> Sha256OfFile(const std::string& path);

// CRC-32C (Castagnoli), as in RFC 3720. Chain by passing the previous value.
uint32_t Crc32c(const void* bytes, size_t size, uint32_t previous = 0);

}  // namespace tandem
