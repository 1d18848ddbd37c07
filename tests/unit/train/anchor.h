// The plain PyTorch anchor as a source of numbers: runs it once per set of options and reads what
// it wrote. Skips where the anchor or a Python with torch is not there.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "base/files.h"
#include "worker/model/parameters.h"
#include "worker/model/safetensors.h"

namespace tandem::testing {

inline std::string SharedFolder() {
  const char* given = std::getenv("TANDEM_SHARED");
  return given != nullptr ? given : std::string(TANDEM_SOURCE_DIR) + "/../shared";
}
inline std::string AnchorScript() {
  return SharedFolder() + "/anchors/eager_trainer.py";
}
inline std::string AnchorModel() {
  return SharedFolder() + "/models/base-4m";
}
inline std::string AnchorPython() {
  return std::string(TANDEM_SOURCE_DIR) + "/.venv-tests/bin/python";
}

// Empty when it can run.
inline std::string WhyNoAnchor() {
  if (!PathExists(AnchorScript())) return "no anchor at " + AnchorScript() + " (TANDEM_SHARED)";
  if (!PathExists(AnchorPython())) return "no Python with torch at " + AnchorPython();
  return "";
}

// What the whole binary wants from the anchor; defined in parity_test.cc, run at the first call.
bool AnchorHasRun();
// The share of loss_curve_test.cc.
std::vector<std::string> LossCurveRuns();

// Where this binary's runs of the anchor lie; made by AnchorRuns.
inline std::string AnchorFolder() {
  return std::string(TANDEM_BINARY_DIR) + "/tests/anchor";
}

// Runs the anchor once with each line of arguments, all in one process; "@OUT" stands for
// AnchorFolder(). False, with the command on stderr, when it failed.
inline bool RunAnchor(const std::vector<std::string>& lines) {
  std::filesystem::remove_all(AnchorFolder());
  std::filesystem::create_directories(AnchorFolder());
  nlohmann::json runs = nlohmann::json::array();
  for (const std::string& line : lines) {
    std::istringstream words(line);
    runs.push_back(std::vector<std::string>(std::istream_iterator<std::string>(words), {}));
  }
  const std::string file = AnchorFolder() + "/runs.json";
  if (!WriteFileDurably(file, runs.dump()).ok()) return false;
  // One thread: products this small only make threads wait for each other.
  const std::string command = "OMP_NUM_THREADS=1 " + AnchorPython() + " " + TANDEM_SOURCE_DIR +
                              "/tests/unit/train/anchor_runs.py " + SharedFolder() + "/anchors " +
                              AnchorModel() + " " + SharedFolder() +
                              "/data/text/wiki.valid.tokens " + AnchorFolder() + " " + file +
                              " >/dev/null";
  if (std::system(command.c_str()) == 0) return true;
  std::fprintf(stderr, "failed: %s\n", command.c_str());
  return false;
}

inline at::Tensor ToTensor(const TensorView& view) {
  const std::map<std::string, at::ScalarType> types = {
      {"F32", at::kFloat}, {"F64", at::kDouble}, {"I32", at::kInt}, {"I64", at::kLong}};
  at::Tensor t = at::empty(view.shape, at::TensorOptions(types.at(view.dtype)));
  std::memcpy(t.data_ptr(), view.data, static_cast<size_t>(view.bytes));
  return t;
}

inline std::map<std::string, at::Tensor> ReadTensors(const std::string& path) {
  const auto file = SafetensorsFile::Open(path);
  EXPECT_TRUE(file.ok()) << file.status().ToString();
  std::map<std::string, at::Tensor> tensors;
  if (!file.ok()) return tensors;
  for (const TensorView& view : (*file)->tensors()) tensors[view.name] = ToTensor(view);
  return tensors;
}

// The anchor's start values: f = 64, LoRA r 8, alpha 16 on all four projections.
inline ParameterOptions AnchorParameterOptions() {
  ParameterOptions options;
  options.feature_dim = 64;
  options.lora.rank = 8;
  options.lora.alpha = 16;
  options.lora.targets = {"q_proj", "k_proj", "v_proj", "o_proj"};
  return options;
}

inline void CopyStart(const std::map<std::string, at::Tensor>& inputs,
                      const Parameters& parameters) {
  for (const auto& [name, tensor] : parameters.tensors()) tensor.copy_(inputs.at(name));
}

}  // namespace tandem::testing
