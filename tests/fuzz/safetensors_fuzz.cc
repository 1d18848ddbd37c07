// Any bytes as a safetensors file: no crash, and what is accepted lies inside the file, whole and
// without overlap.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "worker/model/safetensors.h"

namespace {

using tandem::SafetensorsHeader;

// The promises of an accepted header, by another path than the parser's.
bool IsSound(const SafetensorsHeader& header, int64_t file_bytes) {
  int64_t covered = header.data_begin;
  for (size_t i = 0; i < header.tensors.size(); ++i) {
    const auto& tensor = header.tensors[i];
    int64_t elements = 1;
    for (const int64_t size : tensor.shape) elements *= size;
    if (elements * tandem::SafetensorsDtypeBytes(tensor.dtype) != tensor.bytes) return false;
    if (header.data_begin + header.begins[i] != covered) return false;
    covered += tensor.bytes;
  }
  return covered == file_bytes && header.tensors.size() == header.begins.size();
}

// The checker itself must be able to fail: one planted fault per input.
void CheckTheChecker(SafetensorsHeader header, int64_t file_bytes) {
  if (header.tensors.empty() || header.tensors.back().bytes == 0) return;
  header.begins.back() += 1;
  TANDEM_CHECK_MSG(!IsSound(header, file_bytes), "a planted overlap went unseen");
}

}  // namespace

// Called once per input; aborts on a broken promise. Returns 0, as libFuzzer wants.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  // A mutation of the header alone nearly always breaks the length word: mend it in a second
  // reading.
  std::string mended(reinterpret_cast<const char*>(bytes), size);
  const size_t end = mended.rfind('}');
  if (size >= 10 && end != std::string::npos && end >= 9) {
    const uint64_t length = end + 1 - 8;
    std::memcpy(mended.data(), &length, sizeof length);
  }
  for (const std::string& file :
       {std::string(reinterpret_cast<const char*>(bytes), size), mended}) {
    const auto file_bytes = static_cast<int64_t>(file.size());
    const auto header = tandem::ParseSafetensorsHeader(
        reinterpret_cast<const std::byte*>(file.data()), file_bytes, file_bytes, "input");
    if (!header.ok()) {
      TANDEM_CHECK(!header.status().message().empty());
      continue;
    }
    TANDEM_CHECK_MSG(IsSound(*header, file_bytes), "an accepted header is not sound");
    CheckTheChecker(*header, file_bytes);
  }
  return 0;
}
