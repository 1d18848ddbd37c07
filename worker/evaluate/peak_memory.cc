#include "worker/evaluate/peak_memory.h"

#include <algorithm>
#include <fstream>
#include <string>

namespace tandem {
namespace {

// A line "VmHWM:   1234 kB" of /proc/self/status; 0 when it is not there.
double StatusBytes(const std::string& key) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(key)) return std::stod(line.substr(key.size())) * 1024;
  }
  return 0;
}

}  // namespace

void PeakMemory::StartStage() {
  earlier_ = OfProcess();
  std::ofstream("/proc/self/clear_refs") << "5";
}

double PeakMemory::OfStage() const {
  return StatusBytes("VmHWM:");
}

double PeakMemory::OfProcess() const {
  return std::max(earlier_, OfStage());
}

double ResidentBytes() {
  return StatusBytes("VmRSS:");
}

}  // namespace tandem
