// The converted model as method.md writes it: double, quadratic in T, gradients by autograd. Shares
// nothing but the parameters' names with what it judges; slow, for a few tokens.
#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "tests/unit/train/plain_attention.h"
#include "worker/train/finetune.h"

namespace tandem::testing {

class PlainModel {
 public:
  PlainModel(const Llama& model, const Parameters& parameters)
      : model_(model), c_(model.config()), scale_(parameters.lora_scale()) {
    exp_factor_ = parameters.options().mixing_factor == "exp";
    for (const auto& [name, tensor] : parameters.tensors())
      leaves_[name] = tensor.detach().to(at::kDouble).set_requires_grad(true);
  }

  // Of the batch's targets, as Finetune::LossAndGradients: mean cross-entropy, divergence, or both.
  at::Tensor Loss(const FinetuneOptions& options, const StepBatch& batch,
                  const Finetune::DropoutRule& is_dropped) const {
    const int64_t T = batch.ids_BT.size(1);
    const at::Tensor student = LogProbabilities(batch, [&](const Heads& in, int64_t layer) {
      return Converted(options, batch, is_dropped, in, layer);
    });
    const at::Tensor labels = batch.ids_BT.narrow(1, 1, T - 1).unsqueeze(2);
    at::Tensor loss = student.gather(2, labels).squeeze(2).neg();
    const double share = options.objective == "distill"   ? 1
                         : options.objective == "mixture" ? options.distill_weight
                                                          : 0;
    if (share > 0) {
      const at::Tensor teacher = LogProbabilities(batch, {}).detach();
      const at::Tensor divergence = teacher.exp().mul(teacher.sub(student)).sum(2);
      loss = loss.mul(1 - share).add(divergence, share);
    }
    if (!batch.label_mask_BT.defined()) return loss.mean();
    const at::Tensor counts = batch.label_mask_BT.narrow(1, 1, T - 1).to(at::kDouble);
    return loss.mul(counts).sum().div(counts.sum());
  }

  // Of one objective of attention transfer, or KL(teacher || student) by the word divergence: the
  // joint mean over all layers, one graph.
  at::Tensor TransferLoss(const std::string& objective, const AttentionForm& form,
                          const StepBatch& batch) const {
    at::Tensor loss = at::zeros({}, at::kDouble);
    LogProbabilities(batch, {}, [&](const Heads& in, int64_t layer) {
      const at::Tensor converted = IsRetained(form, layer).logical_not().nonzero().view({-1});
      if (converted.numel() == 0) return;
      const at::Tensor rows = TransferRows(objective, form, batch, in, layer);
      loss = loss.add(rows.index_select(1, converted).mean(),
                      1.0 / static_cast<double>(c_.num_layers));
    });
    return loss;
  }

  // Undefined where the loss does not depend on the parameter.
  std::map<std::string, at::Tensor> Gradients(const at::Tensor& loss) const {
    std::vector<at::Tensor> inputs;
    for (const auto& [name, leaf] : leaves_) inputs.push_back(leaf);
    const auto all = torch::autograd::grad({loss}, inputs, {}, {}, false, /*allow_unused=*/true);
    std::map<std::string, at::Tensor> gradients;
    size_t i = 0;
    for (const auto& [name, leaf] : leaves_) gradients[name] = all[i++];
    return gradients;
  }

 private:
  struct Heads {
    at::Tensor q, k, v;  // (B,H,T,d): k and v repeated for the query heads
  };
  using Attention = std::function<at::Tensor(const Heads&, int64_t layer_index)>;

  at::Tensor Weight(const std::string& name) const { return model_.Weight(name).to(at::kDouble); }
  at::Tensor Leaf(int64_t layer, const std::string& leaf) const {
    const auto found = leaves_.find("layers." + std::to_string(layer) + "." + leaf);
    return found == leaves_.end() ? at::Tensor() : found->second;
  }
  at::Tensor Norm(const at::Tensor& x, const std::string& name) const {
    return x.div(x.square().mean(-1, true).add(c_.rms_norm_eps).sqrt()).mul(Weight(name));
  }
  at::Tensor Project(const at::Tensor& x, int64_t layer, const std::string& name, bool lora) const {
    const std::string hf = "model.layers." + std::to_string(layer) + ".self_attn." + name;
    at::Tensor w = Weight(hf + ".weight");
    if (lora && Leaf(layer, name + ".lora_A").defined())
      w = w.add(Leaf(layer, name + ".lora_B").matmul(Leaf(layer, name + ".lora_A")), scale_);
    return x.matmul(w.t());
  }
  at::Tensor Rotated(const at::Tensor& x) const {
    const int64_t T = x.size(2), d = c_.head_dim;
    const auto f64 = at::TensorOptions().dtype(at::kDouble);
    const at::Tensor frequencies = at::pow(c_.rope.theta, at::arange(0, d, 2, f64).div(-d));
    const at::Tensor angle = at::arange(T, f64).unsqueeze(1).mul(frequencies);
    const at::Tensor a = x.narrow(3, 0, d / 2), b = x.narrow(3, d / 2, d / 2);
    return at::cat({a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()}, 3);
  }
  Heads HeadsOf(const at::Tensor& x, int64_t layer, bool lora) const {
    const int64_t G = c_.num_heads / c_.num_kv_heads;
    const auto split = [&](const char* name, int64_t heads) {
      return Project(x, layer, name, lora)
          .view({x.size(0), x.size(1), heads, c_.head_dim})
          .transpose(1, 2);
    };
    return {Rotated(split("q_proj", c_.num_heads)),
            Rotated(split("k_proj", c_.num_kv_heads)).repeat_interleave(G, 1),
            split("v_proj", c_.num_kv_heads).repeat_interleave(G, 1)};
  }

  // (B,T-1,V); without `attention` the base: softmax, no LoRA. `watch` sees the heads of each
  // layer.
  at::Tensor LogProbabilities(const StepBatch& batch, const Attention& attention,
                              const std::function<void(const Heads&, int64_t)>& watch = {}) const {
    at::Tensor x = Weight("model.embed_tokens.weight").index_select(0, batch.ids_BT.flatten());
    x = x.view({batch.ids_BT.size(0), batch.ids_BT.size(1), c_.hidden_size});
    for (int64_t i = 0; i < c_.num_layers; ++i) {
      const std::string layer = "model.layers." + std::to_string(i) + ".";
      const bool lora = static_cast<bool>(attention);
      const Heads in = HeadsOf(Norm(x, layer + "input_layernorm.weight"), i, lora);
      if (watch) watch(in, i);
      const at::Tensor y = lora ? attention(in, i) : Teacher(batch, in);
      x = x.add(Project(y.transpose(1, 2).flatten(2), i, "o_proj", lora));
      const at::Tensor n = Norm(x, layer + "post_attention_layernorm.weight");
      const auto mlp = [&](const char* name) {
        return Weight(layer + "mlp." + name + ".weight").t();
      };
      x = x.add((at::silu(n.matmul(mlp("gate_proj"))) * n.matmul(mlp("up_proj")))
                    .matmul(mlp("down_proj")));
    }
    const at::Tensor rows = Norm(x, "model.norm.weight").narrow(1, 0, x.size(1) - 1);
    return at::log_softmax(rows.matmul(Weight("model.embed_tokens.weight").t()), 2);
  }

  static at::Tensor Teacher(const StepBatch& batch, const Heads& in) {
    return plain::Softmax(plain::Scores(in.q, in.k), plain::Causal(batch)).matmul(in.v);
  }

  // x of every pair, whether it is read or not.
  at::Tensor Pairs(const AttentionForm& form, const Heads& in, int64_t layer) const {
    const auto per_head = [&](const at::Tensor& t) {
      return t.defined() ? t.repeat_interleave(c_.num_heads / t.size(0), 0) : t;
    };
    const auto features = [&](const at::Tensor& x, const std::string& map) {
      return plain::Features(form, x, per_head(Leaf(layer, map)),
                             per_head(Leaf(layer, map + "_bias")));
    };
    return features(in.q, "feature_map_q").matmul(features(in.k, "feature_map_k").transpose(2, 3));
  }
  at::Tensor Gamma(int64_t layer) const {
    const at::Tensor theta = Leaf(layer, "window_factor").view({1, -1, 1, 1});
    return exp_factor_ ? theta.exp() : theta.sigmoid();
  }
  at::Tensor IsRetained(const AttentionForm& form, int64_t layer) const {  // (H)
    at::Tensor retained = at::zeros({c_.num_heads}, at::kBool);
    const int64_t G = c_.num_heads / c_.num_kv_heads;
    for (const int64_t group : form.RetainedIn(layer)) retained.narrow(0, group * G, G).fill_(true);
    return retained;
  }

  // Attention of one layer with its retained heads and dropped windows.
  at::Tensor Converted(const FinetuneOptions& options, const StepBatch& batch,
                       const Finetune::DropoutRule& is_dropped, const Heads& in,
                       int64_t layer) const {
    const AttentionForm& form = options.attention;
    const at::Tensor scores = plain::Scores(in.q, in.k), causal = plain::Causal(batch);
    at::Tensor dropped = at::zeros({in.q.size(0), 1, 1, 1}, at::kBool);
    for (int64_t b = 0; b < in.q.size(0); ++b)
      dropped[b].fill_(is_dropped(batch.first_sample + b, layer));
    at::Tensor weights;
    if (options.mode == "window_only") {
      weights = plain::Softmax(scores, plain::Window(batch, form));
    } else {
      const at::Tensor x = Pairs(form, in, layer), all = x.masked_fill(causal.logical_not(), 0);
      const at::Tensor linear = all.div(all.sum(-1, true).add(1e-12));
      const bool outside = options.dropped_span == "outside";
      const at::Tensor hybrid = plain::HybridBranches(form, scores, x, batch, Gamma(layer),
                                                      outside ? dropped : at::zeros_like(dropped))
                                    .Weights();
      weights = options.mode == "linear_only" ? linear
                : outside                     ? hybrid
                                              : at::where(dropped, linear, hybrid);
    }
    return at::where(IsRetained(form, layer).view({1, -1, 1, 1}), plain::Softmax(scores, causal),
                     weights)
        .matmul(in.v);
  }

  // Loss of every row and head, (B,H,T).
  at::Tensor TransferRows(const std::string& objective, const AttentionForm& form,
                          const StepBatch& batch, const Heads& in, int64_t layer) const {
    const at::Tensor scores = plain::Scores(in.q, in.k), causal = plain::Causal(batch);
    const at::Tensor p = plain::Softmax(scores, causal), x = Pairs(form, in, layer);
    const plain::Branches hybrid = plain::HybridBranches(
        form, scores, x, batch, Gamma(layer), at::zeros({in.q.size(0), 1, 1, 1}, at::kBool));
    const at::Tensor all = x.masked_fill(causal.logical_not(), 0);
    if (objective == "weights") return all.sum(-1).log().sub(p.mul(x.add(1e-12).log()).sum(-1));
    if (objective == "divergence")
      return p.mul(p.add(1e-300).log().sub(x.add(1e-12).div(all.sum(-1, true)).log())).sum(-1);
    if (objective == "hybrid_weights") {
      const at::Tensor total = hybrid.window.add(hybrid.linear).sum(-1);
      const at::Tensor weight =
          at::where(plain::Window(batch, form), hybrid.window, hybrid.linear.add(1e-12));
      return total.log().sub(p.mul(weight.log()).sum(-1));
    }
    const at::Tensor student =
        objective == "outputs" ? all.div(all.sum(-1, true).add(1e-12)) : hybrid.Weights();
    return student.sub(p).matmul(in.v).square().mean(-1).mul(1000);
  }

  const Llama& model_;
  const ModelConfig& c_;
  const double scale_;
  bool exp_factor_ = false;
  std::map<std::string, at::Tensor> leaves_;
};

}  // namespace tandem::testing
