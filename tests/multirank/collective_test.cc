// The collective over MPI, run by mpirun with 3 ranks; prints nothing and exits 0 when all is well.
// Not gtest: every rank is a process, and any of them may fail.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "worker/comm/mpi_collective.h"

namespace tandem {
namespace {

void Require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "collective_test: %s\n", what);
  AbortAllRanks(1);
}

// 1e8 + 1 - 1e8 depends on the order of additions in fp32: rank order gives 0.
void CheckOrderOfSums(Collective& ranks) {
  const float parts[] = {1e8f, 1.0f, -1e8f};
  float value = parts[ranks.rank()];
  ranks.AllReduceSum(std::span<float>(&value, 1));
  Require(value == 0.0f, "sums must be made in rank order");
}

void CheckLongSums(Collective& ranks) {
  std::vector<double> values(3'000'000);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<double>(i) * static_cast<double>(ranks.rank() + 1);
  }
  ranks.AllReduceSum(std::span<double>(values));
  for (size_t i = 0; i < values.size(); i += 999'983) {
    Require(values[i] == 6.0 * static_cast<double>(i), "a long sum goes chunk by chunk");
  }
}

void CheckGatherAndBroadcast(Collective& ranks) {
  const std::vector<double> mine(static_cast<size_t>(ranks.rank()),
                                 static_cast<double>(ranks.rank()));
  Require(ranks.AllGather(mine) == std::vector<double>({1, 2, 2}), "parts may differ in length");
  const std::string text = ranks.rank() == 1 ? "from one" : "";
  Require(ranks.Broadcast(text, 1) == "from one", "all ranks get the root's text");
}

void CheckAgreement(Collective& ranks) {
  Require(ranks.Agree(ranks.rank() == 2 ? 3 : 0) == 0, "the first agreement is 0");
  Require(ranks.Agree(0) == 3, "one rank's request reaches all, one call later");
  Require(ranks.Agree(0) == 0, "a request counts once");
}

}  // namespace
}  // namespace tandem

int main() {
  tandem::MpiEnvironment mpi;
  const auto ranks = tandem::MakeMpiCollective();
  tandem::Require(ranks->size() == 3, "must run with 3 ranks");
  tandem::CheckOrderOfSums(*ranks);
  tandem::CheckLongSums(*ranks);
  tandem::CheckGatherAndBroadcast(*ranks);
  tandem::CheckAgreement(*ranks);
  return 0;
}
