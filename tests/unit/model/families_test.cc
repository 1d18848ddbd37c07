// Each family beside transformers' own classes: the same logits, and the same gradients through
// biases and the heads' norms. family_models.py writes the models and the vectors.
#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>

#include "tests/unit/model_files/folder.h"
#include "tests/unit/recurrent/recurrent_cases.h"
#include "tests/unit/train/tiny_model.h"
#include "worker/comm/collective.h"
#include "worker/model/evaluation_forward.h"
#include "worker/model/safetensors.h"
#include "worker/train/finetune.h"

namespace tandem::testing {
namespace {

// Logits of size 10 in fp32, summed in another order; gradients likewise, relative to the largest.
constexpr double kLogitTolerance = 1e-4;
constexpr double kGradientTolerance = 1e-4;

const char* const kFamilies[] = {"llama",      "llama_bias", "llama_linear",   "llama_old_keys",
                                 "llama_yarn", "mistral",    "mistral_window", "qwen2",
                                 "qwen3",      "qwen3_bias"};

at::Tensor TensorOf(const SafetensorsFile& file, const std::string& name) {
  const TensorView* view = file.Find(name);
  TANDEM_CHECK_MSG(view != nullptr, name);
  at::Tensor tensor = at::empty(view->shape, view->dtype == "I64" ? at::kLong : at::kFloat);
  std::memcpy(tensor.data_ptr(), view->data, static_cast<size_t>(view->bytes));
  return tensor;
}

double Largest(const at::Tensor& x) {
  return x.abs().max().item<double>();
}

class Families : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    const std::string python = std::string(TANDEM_SOURCE_DIR) + "/.venv-tests/bin/python";
    if (!PathExists(python)) return;
    folder_ = new TestFolder;
    const std::string command = "OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 " + python + " " +
                                TANDEM_SOURCE_DIR + "/tests/unit/model/family_models.py " +
                                folder_->path() + " 2>&1";
    ASSERT_EQ(std::system(command.c_str()), 0);
  }
  static void TearDownTestSuite() { delete folder_; }
  void SetUp() override {
    at::set_num_threads(1);  // tiny products: threads would only wait for each other
    if (folder_ == nullptr) GTEST_SKIP() << ".venv-tests is not there; run tests/run.sh once";
  }
  static std::unique_ptr<Llama> Load(const std::string& name) {
    auto model = Llama::Load(folder_->File(name));
    EXPECT_TRUE(model.ok()) << name << ": " << model.status().ToString();
    return model.ok() ? std::move(model.value()) : nullptr;
  }
  static std::unique_ptr<SafetensorsFile> Vectors(const std::string& name) {
    return SafetensorsFile::Open(folder_->File(name + "/vectors.safetensors")).value();
  }
  static TestFolder* folder_;
};
TestFolder* Families::folder_ = nullptr;

TEST_F(Families, GiveTheLogitsOfTransformers) {
  for (const char* name : kFamilies) {
    const auto model = Load(name);
    ASSERT_NE(model, nullptr);
    const auto vectors = Vectors(name);
    EvaluationOptions options;
    options.mode = ComponentMode::kSoftmax;
    const Parameters parameters(model->config(), TinyParameterOptions());
    const at::Tensor logits =
        EvaluateLogits(*model, parameters, TensorOf(*vectors, "ids"), options);
    const at::Tensor wanted = TensorOf(*vectors, "logits");
    EXPECT_LT(Largest(logits.sub(wanted)), kLogitTolerance) << name;
    EXPECT_GT(Largest(wanted), 0.5) << name;
    // Every tensor of the file comes back by its name.
    const auto files =
        SafetensorsFile::Open(folder_->File(std::string(name) + "/model.safetensors"));
    for (const TensorView& view : ExpectedTensors(model->config())) {
      EXPECT_TRUE(model->Weight(view.name).equal(TensorOf(**files, view.name))) << view.name;
    }
  }
}

// Read whole, in parts and token by token: the base gives transformers' logits; converted it gives
// those of its own evaluation, which the exports' tests compare with transformers.
TEST_F(Families, GiveTheSameTokenByToken) {
  ParameterOptions map = TinyParameterOptions();
  map.lora = {};
  for (const char* name : kFamilies) {
    const auto model = Load(name);
    ASSERT_NE(model, nullptr);
    const auto vectors = Vectors(name);
    const at::Tensor ids = TensorOf(*vectors, "ids");
    Parameters parameters(model->config(), map);
    Disturb(parameters);
    for (const ComponentMode mode : {ComponentMode::kSoftmax, ComponentMode::kHybrid}) {
      EvaluationOptions evaluation;
      evaluation.mode = mode;
      evaluation.attention.window = 8;
      const at::Tensor wanted = mode == ComponentMode::kSoftmax
                                    ? TensorOf(*vectors, "logits")
                                    : EvaluateLogits(*model, parameters, ids, evaluation);
      RecurrentOptions options;
      options.mode = mode;
      options.form = evaluation.attention;
      const RecurrentModel recurrent(*model, &parameters, options);
      for (const std::vector<int64_t>& parts :
           {std::vector<int64_t>{40}, {1}, {7, 1, 20}, {20, 1}}) {
        const at::Tensor logits = LogitsInParts(recurrent, ids, parts);
        EXPECT_LT(Largest(logits.sub(wanted)), kLogitTolerance)
            << name << " " << ComponentModeName(mode) << ", first part " << parts[0];
      }
    }
  }
}

// A window as long as the text makes the hybrid full softmax, so transformers' gradient dW of a
// projection gives that of LoRA at B = 0: dB = scale dW A^T.
TEST_F(Families, GiveTheGradientsOfTransformers) {
  for (const char* name : kFamilies) {
    const auto model = Load(name);
    ASSERT_NE(model, nullptr);
    const auto vectors = Vectors(name);
    const Parameters parameters(model->config(), TinyParameterOptions());
    int64_t number = 0;
    for (const auto& [key, tensor] : parameters.tensors()) {
      if (key.ends_with("lora_A")) tensor.copy_(RandomTensor(tensor.sizes(), 0.5, ++number));
    }
    FinetuneOptions options;
    options.attention.window = 40;
    const auto solo = MakeSoloCollective();
    Finetune finetune(*model, parameters, *solo, options);
    StepBatch batch;
    batch.ids_BT = TensorOf(*vectors, "ids");
    GradientMap gradients;
    finetune.LossAndGradients(
        batch, [](int64_t, int64_t) { return false; }, gradients);
    for (int64_t layer = 0; layer < 2; ++layer) {
      for (const char* projection : {"q_proj", "k_proj", "v_proj", "o_proj"}) {
        const std::string key = std::to_string(layer) + "." + projection;
        const at::Tensor a = parameters.tensors().at("layers." + key + ".lora_A");
        const at::Tensor wanted =
            TensorOf(*vectors, "d." + key).matmul(a.t()).mul(parameters.lora_scale());
        const at::Tensor gradient = gradients.at("layers." + key + ".lora_B");
        EXPECT_LT(Largest(gradient.sub(wanted)), kGradientTolerance * Largest(wanted))
            << name << " " << key;
        EXPECT_GT(Largest(wanted), 1e-4) << name << " " << key;
      }
    }
  }
}

TEST_F(Families, SequencesBeyondTheBasesOwnWindowAreRefused) {
  const auto model = Load("mistral_window");
  ASSERT_NE(model, nullptr);
  EXPECT_TRUE(CheckSequenceLength(model->config(), 40).ok());
  const Status status = CheckSequenceLength(model->config(), 41);
  EXPECT_NE(status.message().find("sliding_window is 40"), std::string::npos) << status.ToString();
  EXPECT_TRUE(CheckSequenceLength(Load("mistral")->config(), 1 << 20).ok());
  EXPECT_TRUE(CheckSequenceLength(Load("qwen2")->config(), 1 << 20).ok());  // no layer slides
}

}  // namespace
}  // namespace tandem::testing
