// Rotary embeddings: what config.json says of them, and the frequencies that follow.
#include <algorithm>
#include <cmath>

#include "worker/model/config_keys.h"

namespace tandem {
namespace {

using nlohmann::json;

constexpr double kPi = 3.14159265358979323846;

void ReadYarn(KeyReader& keys, RopeConfig* rope) {
  rope->beta_fast = keys.Number("beta_fast", 1e-3, 1e6, 32);
  rope->beta_slow = keys.Number("beta_slow", 1e-3, 1e6, 1);
  rope->attention_factor =
      keys.Number("attention_factor", 1e-3, 1e3, 0.1 * std::log(rope->factor) + 1);
  rope->original_max_position_embeddings =
      keys.Integer("original_max_position_embeddings", 1, 1 << 30, 0, false);
  for (const char* key : {"mscale", "mscale_all_dim"}) {
    if (keys.Has(key)) keys.Refuse(key, "is not supported; delete it");
  }
  if (!keys.Boolean("truncate", true)) keys.Refuse("truncate", "must be true");
  if (rope->beta_fast <= rope->beta_slow) keys.Refuse("beta_fast", "must be above beta_slow");
}

void ReadRopeScaling(const json& object, const std::string& prefix, std::vector<std::string>* bad,
                     RopeConfig* rope) {
  if (!object.is_object()) {
    bad->push_back(prefix + " must be an object with rope_type");
    return;
  }
  KeyReader keys(object, prefix + ".", bad);
  const std::string old_type = keys.String("type", "");
  rope->type = keys.String("rope_type", old_type.empty() ? "default" : old_type);
  if (!old_type.empty() && rope->type != old_type) {
    keys.Refuse("type", "contradicts rope_type '" + rope->type + "'");
  }
  if (rope->type != "default" && rope->type != "linear" && rope->type != "llama3" &&
      rope->type != "yarn") {
    keys.Refuse(object.contains("rope_type") ? "rope_type" : "type",
                "supported: default, linear, llama3, yarn");
    return;
  }
  if (keys.Has("partial_rotary_factor") && keys.Number("partial_rotary_factor", 0, 1, 1) != 1) {
    keys.Refuse("partial_rotary_factor", "only 1 is supported");
  }
  if (rope->type == "default") return;
  rope->factor = keys.Number("factor", 1, 1e6, 1, true);
  if (rope->type == "linear") return;
  if (rope->type == "yarn") return ReadYarn(keys, rope);
  rope->low_freq_factor = keys.Number("low_freq_factor", 1e-3, 1e6, 1, true);
  rope->high_freq_factor = keys.Number("high_freq_factor", 1e-3, 1e6, 4, true);
  rope->original_max_position_embeddings =
      keys.Integer("original_max_position_embeddings", 1, 1 << 30, 1, true);
  if (rope->high_freq_factor <= rope->low_freq_factor) {
    keys.Refuse("high_freq_factor", "must be above low_freq_factor");
  }
}

bool SameRope(const RopeConfig& a, const RopeConfig& b) {
  return a.type == b.type && a.factor == b.factor && a.low_freq_factor == b.low_freq_factor &&
         a.high_freq_factor == b.high_freq_factor && a.beta_fast == b.beta_fast &&
         a.beta_slow == b.beta_slow && a.attention_factor == b.attention_factor &&
         a.original_max_position_embeddings == b.original_max_position_embeddings;
}

// Which share of pair i is interpolated: 0 for short waves, 1 for long ones.
struct YarnRamp {
  double low = 0, high = 1;
  float At(int64_t pair) const {
    const double width = low == high ? 1e-3 : high - low;
    return static_cast<float>(std::clamp((static_cast<double>(pair) - low) / width, 0.0, 1.0));
  }
};

YarnRamp RampOf(const RopeConfig& rope, int64_t head_dim) {
  const double d = static_cast<double>(head_dim);
  const double length = static_cast<double>(rope.original_max_position_embeddings);
  if (rope.type != "yarn") return {};
  const auto pair = [&](double rotations) {
    return d * std::log(length / (rotations * 2 * kPi)) / (2 * std::log(rope.theta));
  };
  return {std::max(std::floor(pair(rope.beta_fast)), 0.0),
          std::min(std::ceil(pair(rope.beta_slow)), d - 1)};
}

}  // namespace

RopeConfig ReadRope(const json& root, std::vector<std::string>* bad) {
  KeyReader keys(root, "", bad);
  RopeConfig rope;
  const bool old_theta = keys.Has("rope_theta"), old_scaling = keys.Has("rope_scaling");
  rope.theta = keys.Number("rope_theta", 1, 1e12, 10000);
  if (old_scaling) ReadRopeScaling(root["rope_scaling"], "rope_scaling", bad, &rope);
  if (!keys.Has("rope_parameters")) return rope;
  RopeConfig named;
  ReadRopeScaling(root["rope_parameters"], "rope_parameters", bad, &named);
  if (!root["rope_parameters"].is_object()) return rope;
  KeyReader inner(root["rope_parameters"], "rope_parameters.", bad);
  named.theta = inner.Number("rope_theta", 1, 1e12, rope.theta, !old_theta);
  if (old_theta && named.theta != rope.theta) {
    inner.Refuse("rope_theta", "contradicts rope_theta " + root["rope_theta"].dump());
  }
  if (old_scaling && !SameRope(named, rope)) {
    keys.Refuse("rope_scaling", "contradicts rope_parameters; delete one of them");
  }
  return named;
}

std::vector<float> RopeInverseFrequencies(const RopeConfig& rope, int64_t head_dim) {
  std::vector<float> frequencies;
  const YarnRamp ramp = RampOf(rope, head_dim);
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    float omega = 1.0f / static_cast<float>(std::pow(rope.theta, static_cast<double>(exponent)));
    const auto factor = static_cast<float>(rope.factor);
    if (rope.type == "linear") omega /= factor;
    if (rope.type == "yarn") {
      const float share = ramp.At(i);
      omega = omega / factor * share + omega * (1 - share);
    }
    if (rope.type == "llama3") {
      const double length = static_cast<double>(rope.original_max_position_embeddings);
      const double wavelength = 2 * kPi / static_cast<double>(omega);
      if (wavelength > length / rope.low_freq_factor) {
        omega /= factor;
      } else if (wavelength >= length / rope.high_freq_factor) {
        const double smooth = (length / wavelength - rope.low_freq_factor) /
                              (rope.high_freq_factor - rope.low_freq_factor);
        omega = static_cast<float>((1 - smooth) * static_cast<double>(omega) / rope.factor +
                                   smooth * static_cast<double>(omega));
      }
    }
    frequencies.push_back(omega);
  }
  return frequencies;
}

}  // namespace tandem
