// Collective: what the ranks of an attempt do together, on host memory.
//
// It exists so that training knows neither MPI nor NCCL. Every call is collective: all ranks make
// the same calls in the same order, from one thread. Sums are deterministic: every rank receives
// all parts and adds them in the order of ranks, so all ranks hold the same bits, run after run. A
// lost peer ends in CollectiveLost (or in the death of the process: Open MPI aborts the job).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace tandem {

// Thrown by every call below; worker/rank turns it into exit code 12.
class CollectiveLost : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class Collective {
 public:
  virtual ~Collective() = default;
  virtual int64_t rank() const = 0;
  virtual int64_t size() const = 0;

  // values := sum over ranks, in rank order; all ranks get the same bits.
  virtual void AllReduceSum(std::span<float> values) = 0;
  virtual void AllReduceSum(std::span<double> values) = 0;
  // Parts of all ranks, one after the other, on every rank. Parts may differ in length.
  virtual std::vector<double> AllGather(std::span<const double> part) = 0;
  // root's text on every rank.
  virtual std::string Broadcast(const std::string& text, int64_t root) = 0;
  virtual void Barrier() = 0;
  // Control agreement (service.md §5): the maximum of what all ranks said in the *previous* call.
  // Posted without waiting, so a step never stalls on it: all ranks act on a request at the same
  // step, one step later. The first call gives 0.
  virtual int64_t Agree(int64_t request) = 0;
};

// One rank alone, no MPI: tests and tools.
std::unique_ptr<Collective> MakeSoloCollective();

}  // namespace tandem
