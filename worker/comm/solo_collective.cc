#include <utility>

#include "worker/comm/collective.h"

namespace tandem {
namespace {

class SoloCollective final : public Collective {
 public:
  int64_t rank() const override { return 0; }
  int64_t size() const override { return 1; }
  void AllReduceSum(std::span<float> values) override { (void)values; }
  void AllReduceSum(std::span<double> values) override { (void)values; }
  std::vector<double> AllGather(std::span<const double> part) override {
    return {part.begin(), part.end()};
  }
  std::string Broadcast(const std::string& text, int64_t root) override {
    (void)root;
    return text;
  }
  void Barrier() override {}
  int64_t Agree(int64_t request) override { return std::exchange(pending_, request); }

 private:
  int64_t pending_ = 0;
};

}  // namespace

std::unique_ptr<Collective> MakeSoloCollective() {
  return std::make_unique<SoloCollective>();
}

}  // namespace tandem
