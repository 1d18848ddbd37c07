#include "worker/comm/mpi_collective.h"

#include <mpi.h>

#include <algorithm>
#include <cstdlib>
#include <numeric>

namespace tandem {
namespace {

// Elements gathered at a time: bounds the buffer at ranks * 4 MiB.
constexpr size_t kChunkElements = size_t{1} << 20;

void Require(int code, const char* call) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(code, text, &length);
  throw CollectiveLost(std::string(call) + ": " + text);
}

class MpiCollective final : public Collective {
 public:
  MpiCollective() {
    Require(MPI_Comm_dup(MPI_COMM_WORLD, &data_), "MPI_Comm_dup");
    Require(MPI_Comm_dup(MPI_COMM_WORLD, &control_), "MPI_Comm_dup");
    MPI_Comm_set_errhandler(data_, MPI_ERRORS_RETURN);
    MPI_Comm_set_errhandler(control_, MPI_ERRORS_RETURN);
    MPI_Comm_rank(data_, &rank_);
    MPI_Comm_size(data_, &size_);
  }

  // The last Agree is still in flight on every rank: complete it, or MPI_Finalize would wait.
  ~MpiCollective() override {
    if (agreement_ != MPI_REQUEST_NULL) MPI_Wait(&agreement_, MPI_STATUS_IGNORE);
    MPI_Comm_free(&control_);
    MPI_Comm_free(&data_);
  }

  int64_t rank() const override { return rank_; }
  int64_t size() const override { return size_; }
  void AllReduceSum(std::span<float> values) override { GatherAndAdd(values, MPI_FLOAT); }
  void AllReduceSum(std::span<double> values) override { GatherAndAdd(values, MPI_DOUBLE); }

  std::vector<double> AllGather(std::span<const double> part) override {
    const int count = static_cast<int>(part.size());
    std::vector<int> counts(static_cast<size_t>(size_)), offsets(static_cast<size_t>(size_));
    Require(MPI_Allgather(&count, 1, MPI_INT, counts.data(), 1, MPI_INT, data_), "MPI_Allgather");
    std::exclusive_scan(counts.begin(), counts.end(), offsets.begin(), 0);
    std::vector<double> all(static_cast<size_t>(offsets.back() + counts.back()));
    Require(MPI_Allgatherv(part.data(), count, MPI_DOUBLE, all.data(), counts.data(),
                           offsets.data(), MPI_DOUBLE, data_),
            "MPI_Allgatherv");
    return all;
  }

  std::string Broadcast(const std::string& text, int64_t root) override {
    std::string result = text;
    int64_t bytes = static_cast<int64_t>(text.size());
    Require(MPI_Bcast(&bytes, 1, MPI_INT64_T, static_cast<int>(root), data_), "MPI_Bcast");
    result.resize(static_cast<size_t>(bytes));
    Require(
        MPI_Bcast(result.data(), static_cast<int>(bytes), MPI_CHAR, static_cast<int>(root), data_),
        "MPI_Bcast");
    return result;
  }

  void Barrier() override { Require(MPI_Barrier(data_), "MPI_Barrier"); }

  int64_t Agree(int64_t request) override {
    if (agreement_ != MPI_REQUEST_NULL) {
      Require(MPI_Wait(&agreement_, MPI_STATUS_IGNORE), "MPI_Wait");
      agreed_ = received_;
    }
    sent_ = request;
    Require(MPI_Iallreduce(&sent_, &received_, 1, MPI_INT64_T, MPI_MAX, control_, &agreement_),
            "MPI_Iallreduce");
    return agreed_;
  }

 private:
  // Not MPI_Allreduce: its order of additions depends on the algorithm it picks.
  template <typename T>
  void GatherAndAdd(std::span<T> values, MPI_Datatype type) {
    if (size_ == 1) return;
    std::vector<T> parts(std::min(values.size(), kChunkElements) * static_cast<size_t>(size_));
    for (size_t begin = 0; begin < values.size(); begin += kChunkElements) {
      const size_t count = std::min(kChunkElements, values.size() - begin);
      T* out = values.data() + begin;
      Require(MPI_Allgather(out, static_cast<int>(count), type, parts.data(),
                            static_cast<int>(count), type, data_),
              "MPI_Allgather");
      for (size_t i = 0; i < count; ++i) {
        T sum = parts[i];
        for (size_t r = 1; r < static_cast<size_t>(size_); ++r) sum += parts[r * count + i];
        out[i] = sum;
      }
    }
  }

  MPI_Comm data_ = MPI_COMM_NULL, control_ = MPI_COMM_NULL;
  int rank_ = 0, size_ = 1;
  int64_t sent_ = 0, received_ = 0, agreed_ = 0;
  MPI_Request agreement_ = MPI_REQUEST_NULL;
};

}  // namespace

MpiEnvironment::MpiEnvironment() {
  int provided = 0;
  Require(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
  if (provided < MPI_THREAD_FUNNELED) throw CollectiveLost("this MPI has no MPI_THREAD_FUNNELED");
}

MpiEnvironment::~MpiEnvironment() {
  MPI_Finalize();
}

std::unique_ptr<Collective> MakeMpiCollective() {
  return std::make_unique<MpiCollective>();
}

void AbortAllRanks(int exit_code) {
  MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::abort();
}

}  // namespace tandem
