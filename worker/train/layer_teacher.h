// LayerTeacher: the lesson of one layer in attention transfer (method.md §6.1), on this rank's
// sequences: teacher, student, loss and gradients, and nothing of other layers or ranks.
//
// With spans (document_spans.h) teacher and student attend within each of them, and a span counts
// by its tokens. x (B,T,D) is the layer's input, y (B,H,T,d) the teacher's output, before W_o.
// Forward of the frozen base and the student's own backward; no autograd. Confined to the training
// thread; all references outlive it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "worker/model/attention/form.h"
#include "worker/model/llama.h"
#include "worker/model/parameters.h"
#include "worker/train/document_spans.h"

namespace tandem {

class LayerTeacher {
 public:
  using Gradients = std::map<std::string, at::Tensor>;
  LayerTeacher(const Llama& model, const Parameters& parameters, const TransferObjective& objective,
               const AttentionForm& form)
      : model_(model), parameters_(parameters), objective_(objective), form_(form) {}

  // The loss; adds grad_scale times its gradients by the parameters' names; fills y.
  double Teach(int64_t layer_index, const at::Tensor& x_BTD, const std::vector<DocumentSpan>& spans,
               double grad_scale, Gradients& gradients, at::Tensor& y_BHTd) const;
  // y alone: what a layer that no longer learns gives to the next one.
  at::Tensor Output(int64_t layer_index, const at::Tensor& x_BTD,
                    const std::vector<DocumentSpan>& spans) const;
  // -sum p* ln p* of the teacher, the mean over rows and converted heads: the floor of a loss by
  // weights. One more pass of softmax.
  double Entropy(int64_t layer_index, const at::Tensor& x_BTD,
                 const std::vector<DocumentSpan>& spans) const;

 private:
  double TeachSpan(int64_t layer_index, const QkvTensors& in, double grad_scale,
                   Gradients& gradients, at::Tensor& y_BHTd) const;

  const Llama& model_;
  const Parameters& parameters_;
  TransferObjective objective_;
  AttentionForm form_;
};

// "layers.3."
std::string LayerPrefix(int64_t layer_index);

}  // namespace tandem
