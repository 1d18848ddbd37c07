// What the recurrent form keeps: constant in the length of the text, but for what stays softmax.
#include "tests/unit/recurrent/recurrent_cases.h"

namespace tandem::testing {
namespace {

int64_t BytesAfter(const Conversion& tiny, const RecurrentOptions& options, int64_t tokens) {
  const RecurrentModel model(*tiny.model, &tiny.parameters, options);
  RecurrentState state = model.Start();
  model.Advance(tiny.ids.narrow(1, 0, tokens), false, &state);
  return state.bytes();
}

RecurrentOptions WithWindow(int64_t window, ComponentMode mode) {
  RecurrentOptions options;
  options.mode = mode;
  options.form.window = window;
  options.form.sinks = 2;
  return options;
}

TEST(RecurrentMemory, IsConstantInTheLength) {
  const Conversion tiny;
  for (const ComponentMode mode :
       {ComponentMode::kHybrid, ComponentMode::kWindowOnly, ComponentMode::kLinearOnly}) {
    for (const WindowKind kind : {WindowKind::kSliding, WindowKind::kTerraced}) {
      RecurrentOptions options = WithWindow(16, mode);
      options.form.window_kind = kind;
      EXPECT_EQ(BytesAfter(tiny, options, 64), BytesAfter(tiny, options, 1024));
    }
  }
  RecurrentOptions cached = WithWindow(16, ComponentMode::kHybrid);
  cached.form.cache_size = 8;
  EXPECT_EQ(BytesAfter(tiny, cached, 64), BytesAfter(tiny, cached, 256));
}

// Two layers of: 15 keys and values and 2 sinks of 2 heads, 16 x 8 sums and 16 of 4 heads; fp32.
TEST(RecurrentMemory, IsWhatTheDesignSays) {
  const Conversion tiny;
  const int64_t per_layer = (15 + 2) * 2 * 2 * 8 * 4 + 4 * (16 * 8 + 16) * 4;
  EXPECT_EQ(BytesAfter(tiny, WithWindow(16, ComponentMode::kHybrid), 1024), 2 * per_layer);
}

TEST(RecurrentMemory, OfTheBaseGrowsAndOfOneRetainedGroupGrowsByItsShare) {
  const Conversion tiny;
  const RecurrentOptions base = WithWindow(16, ComponentMode::kSoftmax);
  EXPECT_EQ(BytesAfter(tiny, base, 64), 2 * 2 * 64 * 2 * 8 * 4);
  EXPECT_EQ(BytesAfter(tiny, base, 512), 8 * BytesAfter(tiny, base, 64));
  RecurrentOptions retained = WithWindow(16, ComponentMode::kHybrid);
  retained.form.retained = {{}, {1}};
  EXPECT_EQ(BytesAfter(tiny, retained, 512) - BytesAfter(tiny, retained, 64),
            (512 - 64) * 2 * 8 * 4);
}

TEST(RecurrentMemory, TiedMapsShareTheirSums) {
  ParameterOptions map = Conversion::WithoutLora();
  map.tie_kv_heads = true;
  const Conversion tied(map), free;
  const RecurrentOptions options = WithWindow(16, ComponentMode::kLinearOnly);
  EXPECT_EQ(2 * BytesAfter(tied, options, 64), BytesAfter(free, options, 64));
}

TEST(RecurrentAttentionRefuses, WhatHasNoRecurrentForm) {
  const Conversion tiny;
  const auto make = [&](const RecurrentOptions& options) {
    return RecurrentModel(*tiny.model, &tiny.parameters, options);
  };
  EXPECT_THROW(make(WithWindow(16, ComponentMode::kSinksOnly)), c10::Error);
  EXPECT_THROW(make(WithWindow(16, ComponentMode::kNone)), c10::Error);
  EXPECT_THROW(make(WithWindow(0, ComponentMode::kHybrid)), c10::Error);
  RecurrentOptions options = WithWindow(16, ComponentMode::kHybrid);
  options.form.span = Span::kAll;
  options.form.cache_size = 4;
  EXPECT_THROW(make(options), c10::Error);
  options.form.cache_size = 0;
  options.form.mixing = Mixing::kMass;
  EXPECT_THROW(make(options), c10::Error);
  EXPECT_THROW(RecurrentModel(*tiny.model, nullptr, WithWindow(16, ComponentMode::kHybrid)),
               c10::Error);
}

}  // namespace
}  // namespace tandem::testing
