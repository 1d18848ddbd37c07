// Which GPUs a process may use: nvidia-smi's list as CUDA_VISIBLE_DEVICES cuts it.
#include "base/gpus.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/files.h"

namespace tandem {
namespace {

using Gpus = std::vector<GpuId>;
const std::string kListed = "GPU-aa11\nGPU-bb22\nGPU-cc33\n";

TEST(Gpus, AllThatAreListedWithoutTheVariable) {
  EXPECT_EQ(VisibleGpus(kListed, std::nullopt), (Gpus{"GPU-aa11", "GPU-bb22", "GPU-cc33"}));
  EXPECT_EQ(VisibleGpus("", std::nullopt), Gpus{});
  EXPECT_EQ(VisibleGpus("No devices were found\n", std::nullopt), Gpus{});
}

TEST(Gpus, TheVariableCutsAndOrders) {
  EXPECT_EQ(VisibleGpus(kListed, "2, 0"), (Gpus{"2", "0"}));
  EXPECT_EQ(VisibleGpus(kListed, "GPU-bb"), Gpus{"GPU-bb"});
  EXPECT_EQ(VisibleGpus(kListed, "MIG-7"), Gpus{"MIG-7"});
  EXPECT_EQ(VisibleGpus(kListed, ""), Gpus{}) << "set and empty: none";
}

// As CUDA does: what follows an entry that names no GPU is not seen either.
TEST(Gpus, TheFirstEntryThatNamesNoGpuEndsTheList) {
  EXPECT_EQ(VisibleGpus(kListed, "1,3,0"), Gpus{"1"});
  EXPECT_EQ(VisibleGpus(kListed, "-1"), Gpus{});
  EXPECT_EQ(VisibleGpus(kListed, "1,,0"), Gpus{"1"});
  EXPECT_EQ(VisibleGpus(kListed, "GPU-zz,0"), Gpus{});
  EXPECT_EQ(VisibleGpus("", "0"), Gpus{}) << "the variable alone makes no GPU";
}

// PATH of this process, given back at the end.
struct OwnPath {
  explicit OwnPath(const std::string& path) : before(getenv("PATH")) {
    setenv("PATH", path.c_str(), 1);
    unsetenv("CUDA_VISIBLE_DEVICES");
  }
  ~OwnPath() { setenv("PATH", before.c_str(), 1); }
  const std::string before;
};

TEST(Gpus, NvidiaSmiIsAskedAndMayFail) {
  char folder[] = "/tmp/tandem-gpus-test-XXXXXX";
  ASSERT_NE(mkdtemp(folder), nullptr);
  const std::string tool = std::string(folder) + "/nvidia-smi";
  const auto answer = [&](const std::string& script) {
    ASSERT_TRUE(WriteFileDurably(tool, "#!/bin/sh\n" + script).ok());
    ASSERT_EQ(chmod(tool.c_str(), 0755), 0);
  };
  answer("[ \"$1\" = --query-gpu=uuid ] && echo GPU-aa11 && echo GPU-bb22\n");
  {
    const OwnPath path(std::string(folder) + ":/usr/bin:/bin");
    EXPECT_EQ(VisibleGpus(), (Gpus{"GPU-aa11", "GPU-bb22"}));
    answer("echo GPU-aa11; exit 9\n");
    EXPECT_EQ(VisibleGpus(), Gpus{}) << "a driver in trouble";
  }
  EXPECT_TRUE(RemoveTree(folder).ok());
}

}  // namespace
}  // namespace tandem
