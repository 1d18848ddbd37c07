#include "worker/data/philox.h"

namespace tandem {
namespace {

constexpr uint32_t kMultiply0 = 0xD2511F53, kMultiply1 = 0xCD9E8D57;
constexpr uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;

uint32_t High(uint64_t product) {
  return static_cast<uint32_t>(product >> 32);
}
uint32_t Low(uint64_t product) {
  return static_cast<uint32_t>(product);
}

// splitmix64's finaliser (Steele, Lea, Flood 2014): spreads every input bit over the key.
uint64_t Mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

}  // namespace

PhiloxWords Philox4x32(PhiloxWords counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{kMultiply0} * counter[0];
    const uint64_t p1 = uint64_t{kMultiply1} * counter[2];
    counter = {High(p1) ^ counter[1] ^ key[0], Low(p1), High(p0) ^ counter[3] ^ key[1], Low(p0)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  return counter;
}

PhiloxStream::PhiloxStream(uint64_t seed, int64_t stage_index, RandomPurpose purpose) {
  const uint64_t stage = static_cast<uint64_t>(stage_index);
  const uint64_t key = Mix(Mix(Mix(seed) ^ stage) ^ static_cast<uint64_t>(purpose));
  key_ = {Low(key), High(key)};
}

PhiloxWords PhiloxStream::Words(int64_t step, int64_t sample, int64_t layer) const {
  const auto wide = static_cast<uint64_t>(step);
  return Philox4x32(
      {Low(wide), High(wide), static_cast<uint32_t>(sample), static_cast<uint32_t>(layer)}, key_);
}

double PhiloxStream::Uniform(int64_t step, int64_t sample, int64_t layer) const {
  return static_cast<double>(Words(step, sample, layer)[0]) * 0x1p-32;
}

int64_t PhiloxStream::Below(int64_t bound, int64_t step, int64_t sample, int64_t layer) const {
  const PhiloxWords words = Words(step, sample, layer);
  const uint64_t wide = uint64_t{words[1]} << 32 | words[0];
  // The high half of a 64 x 64 product, in portable halves.
  const uint64_t b = static_cast<uint64_t>(bound);
  const uint64_t low = (wide & 0xffffffff) * (b & 0xffffffff);
  const uint64_t mid0 = (wide >> 32) * (b & 0xffffffff) + (low >> 32);
  const uint64_t mid1 = (wide & 0xffffffff) * (b >> 32) + (mid0 & 0xffffffff);
  return static_cast<int64_t>((wide >> 32) * (b >> 32) + (mid0 >> 32) + (mid1 >> 32));
}

}  // namespace tandem
