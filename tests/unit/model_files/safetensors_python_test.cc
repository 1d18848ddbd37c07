// Our files beside those of the `safetensors` package: equal bytes, both ways.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <numeric>

#include "tests/unit/model_files/folder.h"
#include "worker/model/safetensors.h"

namespace tandem {
namespace {

constexpr const char* kScript = R"(
import sys, torch, safetensors.torch as s
f = sys.argv[1]
t = {"m.b": torch.arange(6, dtype=torch.float32).reshape(2, 3), "m.a": torch.arange(4, dtype=torch.bfloat16),
     "ids": torch.arange(5, dtype=torch.int64), "flag": torch.tensor([True]), "one": torch.tensor(2.5, dtype=torch.float64)}
s.save_file(t, f + "/theirs.safetensors", metadata={"format": "pt"})
mine = s.load_file(f + "/ours.safetensors")
assert mine.keys() == t.keys(), mine.keys()
assert all(mine[n].dtype == t[n].dtype and mine[n].shape == t[n].shape and torch.equal(mine[n], t[n]) for n in t)
)";

template <typename T>
TensorView View(const std::string& name, const std::string& dtype, std::vector<int64_t> shape,
                const std::vector<T>& values) {
  return {name, dtype, std::move(shape), reinterpret_cast<const std::byte*>(values.data()),
          static_cast<int64_t>(values.size() * sizeof(T))};
}

TEST(SafetensorsPython, WritesTheSameBytes) {
  const std::string python = std::string(TANDEM_SOURCE_DIR) + "/.venv-tests/bin/python";
  if (!PathExists(python)) GTEST_SKIP() << python << " is not there; run tests/run.sh once";
  TestFolder folder;
  std::vector<float> b(6);
  std::iota(b.begin(), b.end(), 0.0f);
  const std::vector<uint16_t> a = {0x0000, 0x3f80, 0x4000, 0x4040};
  const std::vector<int64_t> ids = {0, 1, 2, 3, 4};
  const std::vector<uint8_t> flag = {1};
  const std::vector<double> one = {2.5};
  ASSERT_TRUE(WriteSafetensors(folder.File("ours.safetensors"),
                               {View("m.b", "F32", {2, 3}, b), View("m.a", "BF16", {4}, a),
                                View("ids", "I64", {5}, ids), View("flag", "BOOL", {1}, flag),
                                View("one", "F64", {}, one)})
                  .ok());
  ASSERT_TRUE(WriteFileDurably(folder.File("compare.py"), kScript).ok());
  const std::string command =
      python + " " + folder.File("compare.py") + " " + folder.path() + " 2>&1";
  ASSERT_EQ(std::system(command.c_str()), 0);
  const auto ours = ReadFile(folder.File("ours.safetensors"));
  const auto theirs = ReadFile(folder.File("theirs.safetensors"));
  ASSERT_TRUE(ours.ok() && theirs.ok());
  EXPECT_EQ(*ours, *theirs);
  EXPECT_TRUE(SafetensorsFile::Open(folder.File("theirs.safetensors")).ok());
}

}  // namespace
}  // namespace tandem
