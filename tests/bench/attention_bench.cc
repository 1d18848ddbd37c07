// Times the CPU attention kernels alone, one thread, in process CPU time: useful GFLOP/s (method.md
// §11) per operation and instruction set. Random inputs; the median of several calls over all heads
// of one sequence.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <random>
#include <vector>

#include "kernels/cpu/tables.h"

namespace tandem {
namespace {

struct Free {
  void operator()(void* p) const { std::free(p); }
};

class Buffer {
 public:
  Buffer(int64_t n, float scale, unsigned seed) {
    const size_t bytes = (static_cast<size_t>(n) * sizeof(float) + 63) / 64 * 64;
    data_.reset(static_cast<float*>(std::aligned_alloc(64, bytes)));
    std::mt19937 engine(seed);
    std::normal_distribution<float> normal(0, scale);
    for (int64_t i = 0; i < n; ++i) data_.get()[i] = normal(engine);
  }
  float* data() const { return data_.get(); }

 private:
  std::unique_ptr<float, Free> data_;
};

// One layer of base-4m at batch 1; memory is (T, heads, d), as a projection leaves it.
struct Layer {
  explicit Layer(int64_t tokens) : T(tokens) {
    problem.sizes = {1, H, K, T, d, f};
    problem.q = View(q, H);
    problem.k = View(k, K);
    problem.v = View(v, K);
    problem.w_q = w_q.data();
    problem.w_k = w_k.data();
    problem.gamma = gamma.data();
  }

  Rows<const float> View(const Buffer& x, int64_t heads) const {
    return {x.data(), T * heads * d, d, heads * d};
  }
  Rows<float> Output(const Buffer& x) const { return {x.data(), T * H * d, d, H * d}; }

  static constexpr int64_t H = 4, K = 2, d = 64, f = 64, F = 128, w = 64;
  int64_t T;
  Buffer q{T * H * d, 1, 1}, k{T * K * d, 1, 2}, v{T * K * d, 1, 3}, w_q{H * d * f, 0.1f, 4};
  Buffer w_k{H * d * f, 0.1f, 5}, out{T * H * d, 1, 6}, teacher{T * H * d, 1, 7}, lse{H * T, 1, 8};
  Buffer d_w_q{H * d * f, 1, 9}, d_w_k{H * d * f, 1, 10}, d_q{T * H * d, 1, 11};
  Buffer d_k{T * H * d, 1, 12}, d_v{T * H * d, 1, 13};
  std::vector<float> gamma = std::vector<float>(H, 0.1f), d_gamma = std::vector<float>(H);
  std::vector<double> sums = std::vector<double>(H);
  HybridProblem<float> problem;
};

template <class Call>
void Time(const char* name, double flops, const Call& call) {
  constexpr int kCalls = 9;
  std::vector<double> seconds;
  for (int i = 0; i <= kCalls; ++i) {
    const std::clock_t start = std::clock();
    for (int64_t head = 0; head < Layer::H; ++head) call(head);
    seconds.push_back(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC);
  }
  std::sort(seconds.begin(), seconds.end());
  const double median = seconds[kCalls / 2];
  std::printf("  %-24s %9.2f ms  %6.1f GFLOP/s\n", name, median * 1e3, flops / median * 1e-9);
}

void Run(Layer& l, const AttentionKernels<float>& kernels) {
  std::printf("%s, T = %ld\n", kernels.instruction_set, static_cast<long>(l.T));
  const double rows = static_cast<double>(Layer::H * l.T), d = Layer::d, F = Layer::F, w = Layer::w;
  const double pairs = rows * static_cast<double>(l.T + 1);
  const double maps = 2 * rows * d * F, forward = rows * (4 * F * d + 4 * w * d);
  const Buffer scratch(kernels.hybrid_scratch(l.problem, true), 1, 1);

  SoftmaxProblem<float> softmax{l.problem.sizes, l.problem.q,         l.problem.k,
                                l.problem.v,     l.Output(l.teacher), l.lse.data()};
  const Buffer softmax_scratch(kernels.softmax_scratch(l.problem.sizes), 1, 1);
  Time("teacher softmax", 2 * pairs * d,
       [&](int64_t bh) { kernels.softmax(softmax, bh, softmax_scratch.data()); });

  const HybridOutputs<float> out{l.Output(l.out), nullptr};
  Time("hybrid forward, maps", maps + forward,
       [&](int64_t bh) { kernels.hybrid_forward(l.problem, out, bh, scratch.data()); });

  HybridGradients<float> g;
  g.out = l.View(l.out, Layer::H);
  g.grad_out = l.View(l.teacher, Layer::H);
  g.d_q = l.Output(l.d_q);
  g.d_k = l.Output(l.d_k);
  g.d_v = l.Output(l.d_v);
  Time("hybrid backward, inputs", maps + rows * (8 * F * d + 8 * w * d),
       [&](int64_t bh) { kernels.hybrid_backward(l.problem, g, bh, scratch.data()); });

  TransferOutputs<float> to{l.View(l.teacher, Layer::H),
                            1e-3f,
                            l.sums.data(),
                            l.d_w_q.data(),
                            l.d_w_k.data(),
                            l.d_gamma.data()};
  Time("transfer by outputs", 2 * maps + forward + rows * 6 * F * d,
       [&](int64_t bh) { kernels.hybrid_transfer(l.problem, to, bh, scratch.data()); });

  WeightsProblem<float> weights;
  weights.sizes = l.problem.sizes;
  weights.q = l.problem.q;
  weights.k = l.problem.k;
  weights.w_q = l.w_q.data();
  weights.w_k = l.w_k.data();
  weights.lse = l.lse.data();
  weights.grad_factor = 1e-3f;
  weights.loss = l.sums.data();
  weights.d_w_q = l.d_w_q.data();
  weights.d_w_k = l.d_w_k.data();
  const Buffer weights_scratch(kernels.weights_scratch(l.problem.sizes), 1, 1);
  Time("transfer by weights", 2 * maps + pairs * 3 * F,
       [&](int64_t bh) { kernels.weights(weights, bh, weights_scratch.data()); });
}

}  // namespace
}  // namespace tandem

int main(int argc, char** argv) {
  tandem::Layer layer(argc > 1 ? std::atoi(argv[1]) : 1024);
  tandem::Run(layer, tandem::Kernels<float>());
  return 0;
}
