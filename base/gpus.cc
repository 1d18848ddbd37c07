#include "base/gpus.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <sstream>

namespace tandem {
namespace {

// A driver in trouble may let nvidia-smi hang.
constexpr const char* kList =
    "timeout -s KILL 20 nvidia-smi --query-gpu=uuid --format=csv,noheader 2>/dev/null";

// "" if it fails.
std::string OutputOf(const char* command) {
  std::FILE* pipe = popen(command, "r");
  if (pipe == nullptr) return "";
  std::string text;
  char bytes[1024];
  for (size_t got = 0; (got = std::fread(bytes, 1, sizeof bytes, pipe)) > 0;) {
    text.append(bytes, got);
  }
  return pclose(pipe) == 0 ? text : "";
}

// An index below the number of GPUs, the beginning of a UUID, or a slice of a GPU, which is not
// listed.
bool NamesGpu(const std::string& entry, const std::vector<GpuId>& uuids) {
  if (entry.empty()) return false;
  if (entry.starts_with("MIG-")) return true;
  if (entry.find_first_not_of("0123456789") == std::string::npos) {
    return entry.size() <= 4 && std::stoul(entry) < uuids.size();
  }
  return std::ranges::any_of(uuids, [&](const GpuId& uuid) { return uuid.starts_with(entry); });
}

}  // namespace

std::vector<GpuId> GpuList(const std::string& text, char separator) {
  std::vector<GpuId> list;
  std::istringstream entries(text);
  for (std::string entry; std::getline(entries, entry, separator);) {
    const size_t begin = entry.find_first_not_of(" \t\r");
    const size_t end = entry.find_last_not_of(" \t\r");
    list.push_back(begin == std::string::npos ? "" : entry.substr(begin, end - begin + 1));
  }
  return list;
}

std::string GpuText(const std::vector<GpuId>& gpus) {
  std::string text;
  for (const GpuId& gpu : gpus) text += (text.empty() ? "" : ",") + gpu;
  return text;
}

std::vector<GpuId> VisibleGpus(const std::string& listed,
                               const std::optional<std::string>& visible) {
  std::vector<GpuId> uuids = GpuList(listed, '\n');
  std::erase_if(uuids, [](const GpuId& uuid) { return !uuid.starts_with("GPU-"); });
  if (!visible || uuids.empty()) return uuids;
  std::vector<GpuId> gpus = GpuList(*visible);
  const auto cut =
      std::ranges::find_if(gpus, [&](const GpuId& entry) { return !NamesGpu(entry, uuids); });
  gpus.erase(cut, gpus.end());
  return gpus;
}

std::vector<GpuId> VisibleGpus() {
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  return VisibleGpus(OutputOf(kList),
                     visible == nullptr ? std::nullopt : std::optional<std::string>(visible));
}

}  // namespace tandem
