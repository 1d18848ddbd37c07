// The rows below `attention`.
#include "spec/field_parts.h"

namespace tandem {

using enum FieldType;

std::vector<Field> AttentionFields() {
  return {
      {.path = "attention", .type = kGroup, .words = "What replaces softmax attention."},
      {.path = "attention.feature_map",
       .type = kGroup,
       .words = "Turns queries and keys into the features of linear attention; trained."},
      {.path = "attention.feature_map.kind",
       .allowed = {"hedgehog", "exp", "exp_shifted", "relu", "elu"},
       .default_value = "hedgehog",
       .words = "What follows a linear map. hedgehog: its softmax. exp: its exponentials. "
                "exp_shifted: the same with the largest entry at 1. relu, elu: as named."},
      {.path = "attention.feature_map.dim",
       .type = kInteger,
       .min = 0,
       .max = 4096,
       .default_value = "0",
       .words = "Width f of the linear map; the features are 2f wide with two_sided, else f. 0: "
                "the model's head_dim."},
      {.path = "attention.feature_map.tie_kv_heads",
       .type = kFlag,
       .default_value = "false",
       .words = "One feature map for the keys of each key/value head instead of one per query "
                "head: smaller state, fewer parameters."},
      {.path = "attention.feature_map.two_sided",
       .type = kFlag,
       .default_words = "true; false with kind relu or elu",
       .words = "The features of the linear map and, side by side, of its negative: every kind has "
                "either form. false: half the state, of the map alone."},
      {.path = "attention.feature_map.bias",
       .type = kFlag,
       .default_words = "false; true with kind relu",
       .words =
           "A trained bias in the linear map: one number per head with kind relu, else one per "
           "head and column."},
      {.path = "attention.window",
       .type = kGroup,
       .words = "The softmax branch: each token's nearest keys."},
      {.path = "attention.window.kind",
       .allowed = {"sliding", "terraced"},
       .default_value = "sliding",
       .words = "sliding: the last `size` keys, the token's own included. terraced: the token's "
                "own block of `size` keys up to itself, and the whole block before."},
      {.path = "attention.window.size",
       .type = kInteger,
       .min = 1,
       .max = kMaxTokens,
       .default_value = "64",
       .unit = "tokens",
       .words = "Keys that each token sees by softmax. Below data.sequence_length."},
      {.path = "attention.window.sinks",
       .type = kInteger,
       .min = 0,
       .max = 1024,
       .default_value = "0",
       .unit = "tokens",
       .words = "First tokens of a sequence that stay in every token's window."},
      {.path = "attention.window.max_grad",
       .allowed = {"through", "detach"},
       .default_value = "through",
       .words = "Whether the gradient flows through the window's maximum. detach exists for parity "
                "with other "
                "implementations; it is a wrong gradient."},
      {.path = "attention.window.align_end",
       .type = kFlag,
       .default_value = "false",
       .words =
           "A terraced window's blocks are counted from the sequence's last token, as LoLCATs "
           "does. A model that writes token by token has no such end: from the prompt's end on "
           "its window slides, so it is not quite the model that was trained. For parity."},
      {.path = "attention.linear",
       .type = kGroup,
       .words = "The linear branch: all that lies beyond the window."},
      {.path = "attention.linear.span",
       .allowed = {"outside", "all"},
       .default_value = "outside",
       .words =
           "Keys that the linear branch reads: outside the window only, or all before the token."},
      {.path = "attention.mixing",
       .type = kGroup,
       .words = "How the two branches share one denominator."},
      {.path = "attention.mixing.kind",
       .allowed = {"shared", "mass"},
       .default_value = "shared",
       .words = "shared: a window factor weighs the softmax terms. mass: the feature map decides "
                "how much the window weighs, softmax only what is inside it; for use alone, with "
                "recipe inference_hybrid or diagnose."},
      {.path = "attention.mixing.factor",
       .allowed = {"sigmoid", "exp"},
       .default_value = "sigmoid",
       .words = "Activation of the trained window factor of each head. Recipe ssd with retained "
                "groups: exp, unless factor or initial is given."},
      {.path = "attention.mixing.initial",
       .type = kReal,
       .min = 0,
       .max = 100,
       .min_open = true,
       .default_value = "0.1",
       .words = "The window factor at the start. Below 1 with sigmoid. Recipe ssd with retained "
                "groups starts at 2: a retained head looks up what a converted local head copies, "
                "and at 0.1 the linear branch's mass drowns that head."},
      {.path = "attention.mixing.affine",
       .type = kFlag,
       .default_value = "false",
       .words = "The linear branch weighs 1 - the window factor, instead of 1. Only with factor "
                "sigmoid."},
      {.path = "attention.mixing.window_gain",
       .type = kReal,
       .min = 0,
       .max = 1e4,
       .min_open = true,
       .default_value = "1",
       .words = "Multiplies the window factor when the model is measured and used, not in "
                "training."},
      {.path = "attention.retain",
       .type = kGroup,
       .words = "Heads that are not converted: they keep full softmax attention and a growing "
                "cache of their own. One such group of heads can carry long-range recall."},
      {.path = "attention.retain.kv_groups",
       .type = kTexts,
       .max_items = 4096,
       .default_words = "none",
       .words = "Groups of heads that share a key/value head, each as \"LAYER.GROUP\", or "
                "\"LAYER\" for all of a layer; counted from 0."},
      {.path = "attention.retain.auto",
       .type = kInteger,
       .min = 0,
       .max = 4096,
       .default_value = "0",
       .unit = "groups",
       .words = "Retain so many groups, those that copy best: chosen on random tokens before "
                "training starts. Not together with kv_groups."},
      {.path = "attention.cache",
       .type = kGroup,
       .words = "Keys that leave the window and stay in the softmax set, once trained."},
      {.path = "attention.cache.size",
       .type = kInteger,
       .min = 0,
       .max = 65536,
       .default_value = "0",
       .unit = "keys",
       .words = "Keys per head that are kept: those that the linear branch recalls worst. 0: none. "
                "Training does not know it; evaluation (mode hybrid), generation and the exported "
                "model use it, token by token."},
      {.path = "attention.compat",
       .allowed = {"none", "lolcats"},
       .default_value = "none",
       .words =
           "lolcats: in a sequence no longer than the window, all keys count in both branches: "
           "a defect of the published code, for parity. Only with a terraced window and "
           "linear.span outside."},
  };
}

}  // namespace tandem
