// Prefill, prefill in parts and decoding are one function, and that of the evaluation (method.md
// §4, Identity; §12.5).
#include "tests/unit/recurrent/recurrent_cases.h"
#include "worker/model/evaluation_forward.h"
#include "worker/plan/plan.h"

namespace tandem::testing {
namespace {

constexpr int64_t kLengths[] = {1, 7, 63, 64, 65, 100, 200, 1024};
constexpr int64_t kDecoded = 300;

std::string NameOf(const RecurrentOptions& options) {
  const AttentionForm& form = options.form;
  return std::string(ComponentModeName(options.mode)) + " w=" + std::to_string(form.window) +
         (form.window_kind == WindowKind::kTerraced ? " terraced" : " sliding") +
         (form.span == Span::kAll ? " all" : " outside") + " sinks=" + std::to_string(form.sinks) +
         (form.mixing == Mixing::kMass ? " mass" : "") + (form.affine ? " affine" : "") +
         (form.window_gain != 1 ? " gain" : "") + (form.retained.empty() ? "" : " retained") +
         (form.align_end ? " from the end" : "") + (form.lolcats_defect ? " as lolcats" : "") +
         " cache=" + std::to_string(form.cache_size);
}

// Whole prefill against: parts, one token at a time, and each length's prefill with one token
// after.
void ExpectIdentity(const Conversion& tiny, const RecurrentOptions& options) {
  SCOPED_TRACE(NameOf(options));
  const RecurrentModel model(*tiny.model, &tiny.parameters, options);
  const at::Tensor whole = LogitsInParts(model, tiny.ids, {1024});
  const at::Tensor parts = LogitsInParts(model, tiny.ids, {1, 6, 56, 1, 1, 35, 100, 824});
  EXPECT_LT(RelativeDistance(parts, whole), kIdentityTolerance) << "in parts";
  const at::Tensor one_by_one = LogitsInParts(model, tiny.ids.narrow(1, 0, kDecoded), {1});
  EXPECT_LT(RelativeDistance(one_by_one, whole.narrow(1, 0, kDecoded)), kIdentityTolerance)
      << "decoded";
  for (const int64_t length : kLengths) {
    RecurrentState state = model.Start();
    const at::Tensor last = model.Advance(tiny.ids.narrow(1, 0, length), false, &state);
    EXPECT_LT(RelativeDistance(last, whole.narrow(1, length - 1, 1)), kIdentityTolerance) << length;
    if (length == 1024) continue;
    const at::Tensor next = model.Advance(tiny.ids.narrow(1, length, 1), false, &state);
    EXPECT_LT(RelativeDistance(next, whole.narrow(1, length, 1)), kIdentityTolerance) << length;
  }
}

void ExpectSameAsEvaluation(const Conversion& tiny, const RecurrentOptions& options) {
  SCOPED_TRACE(NameOf(options));
  const RecurrentModel model(*tiny.model, &tiny.parameters, options);
  const at::Tensor ids = tiny.ids.narrow(1, 0, 700);
  EvaluationOptions evaluation;
  evaluation.mode = options.mode;
  evaluation.attention = options.form;
  const at::Tensor wanted = EvaluateLogits(*tiny.model, tiny.parameters, ids, evaluation);
  EXPECT_LT(RelativeDistance(LogitsInParts(model, ids, {128, 1, 200}), wanted), kIdentityTolerance);
}

class Identity : public ::testing::TestWithParam<int64_t> {};

TEST_P(Identity, HoldsForEveryWindowKindSpanAndSinks) {
  const Conversion tiny;
  for (const WindowKind kind : {WindowKind::kSliding, WindowKind::kTerraced}) {
    for (const Span span : {Span::kOutside, Span::kAll}) {
      for (const int64_t sinks : {0, 3}) {
        RecurrentOptions options;
        options.form.window = GetParam();
        options.form.window_kind = kind;
        options.form.span = span;
        options.form.sinks = sinks;
        ExpectIdentity(tiny, options);
        ExpectSameAsEvaluation(tiny, options);
      }
    }
  }
}

TEST_P(Identity, HoldsInTheOtherModes) {
  const Conversion tiny;
  for (const WindowKind kind : {WindowKind::kSliding, WindowKind::kTerraced}) {
    for (const ComponentMode mode :
         {ComponentMode::kWindowOnly, ComponentMode::kLinearOnly, ComponentMode::kSoftmax}) {
      RecurrentOptions options;
      options.mode = mode;
      options.form.window = GetParam();
      options.form.window_kind = kind;
      options.form.sinks = 3;
      ExpectIdentity(tiny, options);
      ExpectSameAsEvaluation(tiny, options);
    }
  }
}

TEST_P(Identity, HoldsByMassAffineAndWithGain) {
  const Conversion tiny;
  for (const WindowKind kind : {WindowKind::kSliding, WindowKind::kTerraced}) {
    RecurrentOptions options;
    options.form.window = GetParam();
    options.form.window_kind = kind;
    options.form.sinks = 2;
    options.form.mixing = Mixing::kMass;
    ExpectIdentity(tiny, options);
    ExpectSameAsEvaluation(tiny, options);
    options.form.mixing = Mixing::kShared;
    options.form.affine = true;
    options.form.window_gain = 10;
    ExpectIdentity(tiny, options);
    ExpectSameAsEvaluation(tiny, options);
  }
}

TEST_P(Identity, HoldsBesideRetainedGroups) {
  const Conversion tiny;
  for (const WindowKind kind : {WindowKind::kSliding, WindowKind::kTerraced}) {
    RecurrentOptions options;
    options.form.window = GetParam();
    options.form.window_kind = kind;
    options.form.retained = {{1}, {0, 1}};
    ExpectIdentity(tiny, options);
    ExpectSameAsEvaluation(tiny, options);
  }
}

TEST_P(Identity, HoldsWithASparseCache) {
  const Conversion tiny;
  RecurrentOptions options;
  options.form.window = GetParam();
  options.form.sinks = 3;
  options.form.cache_size = 5;
  options.form.window_gain = 10;
  options.form.retained = {{1}, {}};
  ExpectIdentity(tiny, options);
  ExpectSameAsEvaluation(tiny, options);
}

AttentionForm FromTheEnd(int64_t window) {
  AttentionForm form;
  form.window = window;
  form.window_kind = WindowKind::kTerraced;
  form.sinks = 3;
  form.align_end = form.lolcats_defect = true;
  return form;
}

// Where a row depends on the length, the prompt as a whole is the evaluation's sequence.
TEST_P(Identity, OfWindowsFromTheEndHoldsForWholePrompts) {
  const Conversion tiny;
  for (const bool defect : {true, false}) {
    RecurrentOptions options;
    options.form = FromTheEnd(GetParam());
    options.form.lolcats_defect = defect;
    const RecurrentModel model(*tiny.model, &tiny.parameters, options);
    for (const int64_t length : kLengths) {
      if (length == 1) continue;  // no evaluation: it has no target
      const at::Tensor ids = tiny.ids.narrow(1, 0, length);
      EvaluationOptions evaluation;
      evaluation.attention = options.form;
      EXPECT_LT(RelativeDistance(LogitsInParts(model, ids, {length}),
                                 EvaluateLogits(*tiny.model, tiny.parameters, ids, evaluation)),
                kIdentityTolerance)
          << NameOf(options) << " T=" << length;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Windows, Identity, ::testing::Values(1, 4, 16, 64, 256));

// `usual`: with as many sides and the bias that the kind has by default, or the opposite.
TEST(IdentityOf, EveryFeatureMapTiedOrNot) {
  for (const char* kind : {"hedgehog", "exp", "exp_shifted", "relu", "elu"}) {
    for (const bool tied : {false, true}) {
      for (const bool usual : {true, false}) {
        SCOPED_TRACE(std::string(kind) + (tied ? " tied" : "") + (usual ? "" : ", unusual"));
        ParameterOptions map = Conversion::WithoutLora();
        map.feature_map = FeatureMapKindFromWord(kind);
        map.feature_map_bias = IsBiasedKind(kind) == usual;
        map.tie_kv_heads = tied;
        const Conversion tiny(map);
        RecurrentOptions options;
        options.form.map = map.feature_map;
        options.form.two_sided = IsTwoSidedKind(kind) == usual;
        options.form.window = 16;
        ExpectIdentity(tiny, options);
        ExpectSameAsEvaluation(tiny, options);
      }
    }
  }
}

TEST(IdentityOf, ASparseCacheBesideTiedBiasedMaps) {
  ParameterOptions map = Conversion::WithoutLora();
  map.tie_kv_heads = map.feature_map_bias = true;
  RecurrentOptions options;
  options.form.window = 16;
  options.form.cache_size = 4;
  ExpectIdentity(Conversion(map), options);
}

// One layer, so that what the prompt's rows computed does not matter: after it the window slides.
TEST(FromTheEnd, TheWindowSlidesAfterThePrompt) {
  const int64_t H = 4, d = 8, T = 90;
  const at::Tensor q = RandomTensor({1, H, T, d}, 1, 1), k = RandomTensor({1, 2, T, d}, 1, 2),
                   v = RandomTensor({1, 2, T, d}, 1, 3);
  const RecurrentMaps maps{RandomTensor({H, d, d}, 1, 4),
                           RandomTensor({H, d, d}, 1, 5),
                           {},
                           {},
                           RandomTensor({H}, 0.1, 6).add(0.2)};
  AttentionCall call;
  call.q = q;
  call.k = k;
  call.v = v;
  call.w_q = maps.w_q;
  call.w_k = maps.w_k;
  call.gamma = maps.gamma_H;
  call.form = FromTheEnd(16);
  call.form.window_kind = WindowKind::kSliding;
  call.form.align_end = call.form.lolcats_defect = false;
  const at::Tensor sliding = Attend(ComponentMode::kHybrid, call);
  RecurrentOptions options;
  options.form = FromTheEnd(16);
  const RecurrentAttention recurrent(options, maps, {}, H, 2);
  for (const int64_t prompt : {1, 10, 16, 37}) {
    LayerMemory memory;
    const auto tokens = [&](const at::Tensor& x, int64_t begin, int64_t count) {
      return x.narrow(2, begin, count);
    };
    recurrent.Attend(tokens(q, 0, prompt), tokens(k, 0, prompt), tokens(v, 0, prompt), &memory);
    for (int64_t t = prompt; t < T; ++t) {
      const at::Tensor y =
          recurrent.Attend(tokens(q, t, 1), tokens(k, t, 1), tokens(v, t, 1), &memory);
      EXPECT_LT(RelativeDistance(y, tokens(sliding, t, 1)), kIdentityTolerance)
          << prompt << " " << t;
    }
  }
}

TEST(IdentityOf, RetainedGroupsAndWholeLayers) {
  const Conversion tiny;
  for (const std::vector<LayerRetention>& retained :
       {std::vector<LayerRetention>{{1}, {}}, {{}, {0, 1}}, {{0}, {1}}, {{0, 1}, {0, 1}}}) {
    for (const ComponentMode mode :
         {ComponentMode::kHybrid, ComponentMode::kWindowOnly, ComponentMode::kLinearOnly}) {
      RecurrentOptions options;
      options.mode = mode;
      options.form.window = 16;
      options.form.retained = retained;
      ExpectIdentity(tiny, options);
      ExpectSameAsEvaluation(tiny, options);
    }
  }
}

TEST(IdentityOf, SequencesSideBySide) {
  const Conversion tiny;
  const at::Tensor ids = RandomIds(3, 90, 64, 8);
  RecurrentOptions options;
  options.form.window = 16;
  options.form.retained = {{1}, {}};
  const RecurrentModel model(*tiny.model, &tiny.parameters, options);
  const at::Tensor together = LogitsInParts(model, ids, {40, 1});
  for (int64_t b = 0; b < 3; ++b) {
    const at::Tensor alone = LogitsInParts(model, ids.narrow(0, b, 1), {90});
    EXPECT_LT(RelativeDistance(together.narrow(0, b, 1), alone), kIdentityTolerance);
  }
}

}  // namespace
}  // namespace tandem::testing
