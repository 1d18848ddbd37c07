// Ranks as threads of one process: what a collective function gives on several ranks, without MPI.
#pragma once

#include <gtest/gtest.h>

#include <barrier>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "worker/comm/collective.h"

namespace tandem {

// Gathers only: evaluation makes no other call.
class ThreadRank : public Collective {
 public:
  struct Meeting {
    explicit Meeting(int64_t ranks) : parts(static_cast<size_t>(ranks)), barrier(ranks) {}
    std::vector<std::vector<double>> parts;
    std::barrier<> barrier;
  };

  ThreadRank(int64_t rank, Meeting* meeting) : rank_(rank), meeting_(meeting) {}
  int64_t rank() const override { return rank_; }
  int64_t size() const override { return static_cast<int64_t>(meeting_->parts.size()); }
  void AllReduceSum(std::span<float>) override { FAIL(); }
  void AllReduceSum(std::span<double>) override { FAIL(); }
  std::vector<double> AllGather(std::span<const double> part) override {
    meeting_->parts[static_cast<size_t>(rank_)].assign(part.begin(), part.end());
    meeting_->barrier.arrive_and_wait();
    std::vector<double> all;
    for (const auto& of_rank : meeting_->parts) {
      all.insert(all.end(), of_rank.begin(), of_rank.end());
    }
    meeting_->barrier.arrive_and_wait();
    return all;
  }
  std::string Broadcast(const std::string& text, int64_t) override { return text; }
  void Barrier() override { meeting_->barrier.arrive_and_wait(); }
  int64_t Agree(int64_t) override { return 0; }

 private:
  int64_t rank_;
  Meeting* meeting_;
};

// Runs body on every rank at once; returns when all have.
inline void OnRanks(int64_t ranks, const std::function<void(Collective&)>& body) {
  ThreadRank::Meeting meeting(ranks);
  std::vector<std::jthread> threads;
  for (int64_t rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&meeting, &body, rank] {
      ThreadRank collective(rank, &meeting);
      body(collective);
    });
  }
}

}  // namespace tandem
