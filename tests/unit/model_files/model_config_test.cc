#include "worker/model/model_config.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>

#include "tests/unit/model_files/folder.h"

namespace tandem {
namespace {

// A small Llama's config; `more` replaces or adds keys because JSON's last duplicate wins.
std::string Config(const std::string& more = "") {
  return R"({"model_type":"llama","hidden_size":64,"intermediate_size":96,"num_hidden_layers":2,)"
         R"("num_attention_heads":4,"num_key_value_heads":2,"vocab_size":50,"rms_norm_eps":1e-5,)"
         R"("hidden_act":"silu","tie_word_embeddings":true)" +
         (more.empty() ? "" : "," + more) + "}";
}

TEST(ModelConfig, ReadsBothSpellingsOfRope) {
  const auto old = ParseModelConfig(
      Config(
          R"("rope_theta":500000.0,"rope_scaling":{"rope_type":"llama3","factor":8,)"
          R"("low_freq_factor":1,"high_freq_factor":4,"original_max_position_embeddings":8192})"),
      "c");
  const auto named = ParseModelConfig(
      Config(
          R"("rope_parameters":{"rope_theta":500000.0,"rope_type":"llama3","factor":8,)"
          R"("low_freq_factor":1,"high_freq_factor":4,"original_max_position_embeddings":8192})"),
      "c");
  ASSERT_TRUE(old.ok() && named.ok()) << old.status().message() << named.status().message();
  EXPECT_EQ(RopeInverseFrequencies(old->rope, 64), RopeInverseFrequencies(named->rope, 64));
  EXPECT_EQ(old->rope.theta, 500000.0);
  EXPECT_EQ(old->head_dim, 16);
  EXPECT_TRUE(old->tie_word_embeddings);
  const auto linear =
      ParseModelConfig(Config(R"("rope_scaling":{"type":"linear","factor":2.0})"), "c");
  ASSERT_TRUE(linear.ok());
  EXPECT_EQ(RopeInverseFrequencies(linear->rope, 16)[0], 0.5f);
}

TEST(ModelConfig, RopeFollowsItsFormula) {
  RopeConfig rope;
  const auto plain = RopeInverseFrequencies(rope, 64);
  ASSERT_EQ(plain.size(), 32u);
  for (size_t i = 0; i < plain.size(); ++i) {
    const double omega = std::pow(10000.0, -2.0 * static_cast<double>(i) / 64);
    EXPECT_NEAR(plain[i] / omega, 1, 3e-7) << i;
  }
  rope.type = "llama3";
  rope.factor = 8;
  rope.original_max_position_embeddings = 8192;
  const auto scaled = RopeInverseFrequencies(rope, 64);
  EXPECT_EQ(scaled[0], plain[0]);  // short waves stay
  rope.theta = 500000;
  EXPECT_NEAR(RopeInverseFrequencies(rope, 128)[63] / (std::pow(500000.0, -126.0 / 128) / 8), 1,
              3e-7);  // long waves are divided
}

TEST(ModelConfig, EqualsTheBaseModelsFacts) {
  const std::string directory = std::string(TANDEM_SOURCE_DIR) + "/examples/base-4m";
  if (!PathExists(directory)) GTEST_SKIP() << directory << " is not there";
  const auto config = ReadModelConfig(directory);
  ASSERT_TRUE(config.ok()) << config.status().ToString();
  const auto model = SafetensorsModel::Open(directory);
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  const Status status = CheckModelTensors(*config, *model);
  EXPECT_TRUE(status.ok()) << status.ToString();
}

TEST(ModelConfig, KnowsTheFamilies) {
  const auto family = [](const std::string& type, const std::string& more = "") {
    const auto config = ParseModelConfig(
        Config("\"model_type\":\"" + type + "\"" + (more.empty() ? "" : "," + more)), "c");
    EXPECT_TRUE(config.ok()) << type << more << config.status().ToString();
    return config.ok() ? *config : ModelConfig();
  };
  EXPECT_FALSE(family("llama").qkv_bias);
  const ModelConfig biased = family("llama", R"("attention_bias":true,"mlp_bias":true)");
  EXPECT_TRUE(biased.qkv_bias && biased.output_bias && biased.mlp_bias);
  EXPECT_EQ(ExpectedTensors(biased).size(), 2u + 2 * (9 + 7));
  EXPECT_EQ(family("mistral").sliding_window, 4096);  // as transformers, where the key is absent
  EXPECT_EQ(family("mistral", R"("sliding_window":null)").sliding_window, 0);
  EXPECT_EQ(family("mistral", R"("sliding_window":64)").sliding_window, 64);
  const ModelConfig qwen2 = family("qwen2", R"("sliding_window":64)");
  EXPECT_TRUE(qwen2.qkv_bias && !qwen2.output_bias && !qwen2.qk_norm);
  EXPECT_EQ(qwen2.sliding_window, 0);  // use_sliding_window is false
  EXPECT_EQ(ExpectedTensors(qwen2).size(), 2u + 2 * (9 + 3));
  const std::string slides = R"("sliding_window":64,"use_sliding_window":true,)";
  EXPECT_EQ(family("qwen2", slides + R"("max_window_layers":1)").sliding_window, 64);
  EXPECT_EQ(family("qwen2", slides + R"("max_window_layers":2)").sliding_window, 0);
  EXPECT_EQ(family("qwen3", slides + R"("layer_types":["full_attention","sliding_attention"])")
                .sliding_window,
            64);
  const ModelConfig qwen3 = family("qwen3");
  EXPECT_TRUE(qwen3.qk_norm && !qwen3.qkv_bias);
  EXPECT_EQ(qwen3.head_dim, 128);
  EXPECT_EQ(ExpectedTensors(qwen3).size(), 2u + 2 * (9 + 2));
  EXPECT_EQ(family("hybrid_linear", R"("base_model_type":"qwen2")").model_type, "qwen2");
}

TEST(ModelConfig, RefusesSequencesBeyondTheBasesOwnWindow) {
  ModelConfig config;
  EXPECT_TRUE(CheckSequenceLength(config, 1 << 20).ok());
  config.sliding_window = 64;
  EXPECT_TRUE(CheckSequenceLength(config, 64).ok());
  EXPECT_NE(CheckSequenceLength(config, 65).message().find("sliding_window is 64"),
            std::string::npos);
}

struct BadConfig {
  const char* what;
  std::string json;
  const char* message;
};

TEST(ModelConfig, RefusesEachBadConfigByName) {
  const std::string rope5 = R"("rope_theta":10000,"rope_parameters":)";
  const BadConfig cases[] = {
      {"not JSON", "nonsense", "not a JSON object"},
      {"a list", "[]", "not a JSON object"},
      {"no model_type", "{}", "model_type is absent"},
      {"another family", R"({"model_type":"mixtral"})", "model_type is \"mixtral\"; supported"},
      {"missing size", R"({"model_type":"llama"})", "hidden_size is absent; it is needed"},
      {"zero layers", Config(R"("num_hidden_layers":0)"),
       "num_hidden_layers is 0; must be an integer in [1"},
      {"size a string", Config(R"("vocab_size":"50")"), "vocab_size is \"50\"; must be an integer"},
      {"size a fraction", Config(R"("hidden_size":64.5)"), "hidden_size is 64.5"},
      {"huge size", Config(R"("vocab_size":18446744073709551615)"),
       "vocab_size is 18446744073709551615"},
      {"kv heads", Config(R"("num_key_value_heads":3)"), "must divide num_attention_heads 4"},
      {"indivisible", Config(R"("hidden_size":66)"), "multiple of num_attention_heads 4"},
      {"head_dim 12", Config(R"("head_dim":12)"), "head_dim is 12; must be a multiple of 8"},
      {"bias a number", Config(R"("attention_bias":1)"), "attention_bias is 1; must be true or"},
      {"kv heads of mistral", R"({"model_type":"mistral"})", "num_key_value_heads is absent"},
      {"window", Config(R"("model_type":"mistral","sliding_window":0)"), "sliding_window is 0"},
      {"an export of nothing", R"({"model_type":"hybrid_linear"})",
       "model_type is \"hybrid_linear\"; supported"},
      {"activation", Config(R"("hidden_act":"gelu")"), "hidden_act is \"gelu\"; must be 'silu'"},
      {"quantized", Config(R"("quantization_config":{"bits":4})"), "quantized weights"},
      {"eps", Config(R"("rms_norm_eps":-1)"), "rms_norm_eps is -1"},
      {"tie a number", Config(R"("tie_word_embeddings":1)"), "must be true or false"},
      {"rope dynamic", Config(R"("rope_scaling":{"type":"dynamic","factor":2})"),
       "supported: default, linear, llama3, yarn"},
      {"rope longrope", Config(R"("rope_scaling":{"rope_type":"longrope","factor":2})"),
       "supported: default, linear, llama3, yarn"},
      {"rope mscale", Config(R"("rope_scaling":{"rope_type":"yarn","factor":2,"mscale":1})"),
       "rope_scaling.mscale is 1; is not supported"},
      {"rope no factor", Config(R"("rope_scaling":{"rope_type":"linear"})"),
       "rope_scaling.factor is absent"},
      {"rope a list", Config(R"("rope_scaling":[1])"), "rope_scaling must be an object"},
      {"rope theta", Config(R"("rope_theta":0)"), "rope_theta is 0"},
      {"theta twice", Config(rope5 + R"({"rope_theta":5,"rope_type":"default"})"),
       "contradicts rope_theta"},
      {"rope twice",
       Config(R"("rope_scaling":{"type":"linear","factor":2},)" + rope5 +
              R"({"rope_theta":10000,"rope_type":"default"})"),
       "contradicts rope_parameters"},
      {"eos a string", Config(R"("eos_token_id":"</s>")"), "eos_token_id"},
  };
  for (const BadConfig& bad : cases) {
    const auto config = ParseModelConfig(bad.json, "config.json");
    ASSERT_FALSE(config.ok()) << bad.what;
    EXPECT_EQ(config.status().code(), Code::kInvalidArgument) << bad.what;
    EXPECT_NE(config.status().message().find(bad.message), std::string::npos)
        << bad.what << ": " << config.status().message();
  }
}

TEST(ModelConfig, NamesAllViolationsAtOnce) {
  const auto config = ParseModelConfig(
      Config(R"("vocab_size":0,"hidden_act":"relu","rope_theta":-1)"), "config.json");
  ASSERT_FALSE(config.ok());
  for (const char* key : {"vocab_size", "hidden_act", "rope_theta"}) {
    EXPECT_NE(config.status().message().find(std::string("config.json: ") + key), std::string::npos)
        << config.status().message();
  }
}

TEST(ModelConfig, NamesWrongAndMissingTensors) {
  TestFolder folder;
  const auto config = ParseModelConfig(Config(), "c");
  ASSERT_TRUE(config.ok());
  std::vector<float> zeros(10000);
  std::vector<TensorView> tensors = ExpectedTensors(*config);
  for (TensorView& view : tensors) {
    view.dtype = "F32";
    view.data = reinterpret_cast<const std::byte*>(zeros.data());
    view.bytes = *TensorBytes("F32", view.shape);
  }
  const std::string path = folder.File("model.safetensors");
  ASSERT_TRUE(WriteSafetensors(path, tensors).ok());
  EXPECT_TRUE(CheckModelTensors(*config, *SafetensorsModel::Open(folder.path())).ok());

  tensors[1].shape = {63};  // layers.0.input_layernorm
  tensors[1].bytes = 63 * 4;
  tensors[2].name = "model.layers.0.self_attn.q_proj.bias";
  tensors[3].dtype = "I32";
  ASSERT_TRUE(WriteSafetensors(path, tensors).ok());
  const Status status = CheckModelTensors(*config, *SafetensorsModel::Open(folder.path()));
  ASSERT_FALSE(status.ok());
  for (const char* part :
       {"has the shape [63]; config.json promises [64]", "q_proj.weight' is missing",
        "q_proj.bias' does not belong", "is I32; allowed: F32, F16, BF16"}) {
    EXPECT_NE(status.message().find(part), std::string::npos) << part << "\n" << status.message();
  }
}

TEST(ModelConfig, NamesEveryTensorThatIsNotFinite) {
  TestFolder folder;
  const auto config = ParseModelConfig(Config(), "c");
  ASSERT_TRUE(config.ok());
  std::vector<TensorView> tensors = ExpectedTensors(*config);
  std::vector<std::vector<std::byte>> data(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    tensors[i].dtype = i == 2 ? "BF16" : i == 3 ? "F16" : "F32";
    data[i].resize(static_cast<size_t>(*TensorBytes(tensors[i].dtype, tensors[i].shape)));
    tensors[i].data = data[i].data();
    tensors[i].bytes = static_cast<int64_t>(data[i].size());
  }
  const auto put = [&data](size_t tensor, size_t element, auto bits) {
    std::memcpy(data[tensor].data() + element * sizeof bits, &bits, sizeof bits);
  };
  put(0, 1, uint32_t{0x7f7fffff});  // the largest float
  put(2, 1, uint16_t{0x7f7f});
  put(3, 1, uint16_t{0x7bff});
  const std::string path = folder.File("model.safetensors");
  ASSERT_TRUE(WriteSafetensors(path, tensors).ok());
  EXPECT_TRUE(CheckModelTensors(*config, *SafetensorsModel::Open(folder.path())).ok());

  const size_t last = data[0].size() / 4 - 1;
  put(0, last, uint32_t{0x7fc00000});  // NaN
  put(2, 5, uint16_t{0xff80});         // -infinity
  put(3, 1500, uint16_t{0x7e00});      // NaN
  ASSERT_TRUE(WriteSafetensors(path, tensors).ok());
  const Status status = CheckModelTensors(*config, *SafetensorsModel::Open(folder.path()));
  ASSERT_FALSE(status.ok());
  for (const auto& [tensor, element] : std::map<size_t, size_t>{{0, last}, {2, 5}, {3, 1500}}) {
    const std::string part = "tensor '" + tensors[tensor].name +
                             "' holds NaN or infinity, first at element " + std::to_string(element);
    EXPECT_NE(status.message().find(part), std::string::npos) << part << "\n" << status.message();
  }
}

}  // namespace
}  // namespace tandem
