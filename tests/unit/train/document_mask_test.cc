// data.document_mask: a document's loss and teaching do not depend on its neighbours. Gradients are
// in forms_test.cc.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "tests/unit/train/tiny_model.h"
#include "worker/train/attention_transfer.h"
#include "worker/train/document_spans.h"
#include "worker/train/finetune.h"

namespace tandem::testing {
namespace {

constexpr int64_t kT = 20, kStart = 8;

class DocumentMaskTest : public ::testing::Test {
 protected:
  DocumentMaskTest() {
    at::set_num_threads(1);
    Disturb(parameters_);
  }

  double Loss(const StepBatch& batch, int64_t window, bool drops_window = false,
              const std::string& objective = "next_token") {
    FinetuneOptions options;
    options.objective = objective;
    options.attention.window = window;
    options.train_maps = true;
    options.schedule = {1e-2, 0, 20, true};
    Finetune stage(*model_, parameters_, *solo_, options);
    GradientMap unread;
    return stage.LossAndGradients(
        batch, [&](int64_t, int64_t) { return drops_window; }, unread);
  }

  std::vector<double> TransferLosses(const StepBatch& batch, const std::string& objective,
                                     std::map<std::string, at::Tensor>* gradients = nullptr) {
    AttentionTransferOptions options;
    options.objective = objective;
    options.attention.window = 4;
    AttentionTransfer stage(*model_, parameters_, *solo_, options);
    std::map<std::string, at::Tensor> mine;
    return stage.LossesAndGradients(batch, gradients != nullptr ? *gradients : mine);
  }

  // ids_ with other tokens before the second document.
  at::Tensor OtherBeginning() const {
    at::Tensor ids = ids_.clone();
    ids.narrow(1, 0, kStart).copy_(RandomIds(1, kStart, 64, 9));
    return ids;
  }
  // Labels: the second document but for its first token.
  at::Tensor SecondDocument() const {
    at::Tensor mask = ids_.to(at::kByte).zero_();
    mask.narrow(1, kStart + 1, kT - kStart - 1).fill_(1);
    return mask;
  }

  std::unique_ptr<Llama> model_ = TinyModel();
  Parameters parameters_{model_->config(), TinyParameterOptions()};
  std::unique_ptr<Collective> solo_ = MakeSoloCollective();
  at::Tensor ids_ = RandomIds(1, kT, 64, 1);
};

// Softmax sees distances alone (RoPE), so within a window as long as the document the second one
// has the loss that it has on its own.
TEST_F(DocumentMaskTest, ADocumentHasTheLossThatItHasAlone) {
  const double masked = Loss({ids_, 0, SecondDocument(), {{kStart}}}, 64);
  EXPECT_NEAR(masked, Loss({ids_.narrow(1, kStart, kT - kStart), 0}, 64), 1e-5);
  EXPECT_GT(std::abs(masked - Loss({ids_, 0, SecondDocument()}, 64)), 1e-3);
}

TEST_F(DocumentMaskTest, WhatStandsBeforeADocumentHasNoPart) {
  for (const bool drops_window : {false, true}) {
    const StepBatch batch{ids_, 0, SecondDocument(), {{kStart}}};
    const StepBatch other{OtherBeginning(), 0, SecondDocument(), {{kStart}}};
    const double loss = Loss(batch, 4, drops_window);
    EXPECT_EQ(loss, Loss(other, 4, drops_window));
    EXPECT_GT(std::abs(loss - Loss({ids_, 0, SecondDocument()}, 4, drops_window)), 1e-4);
  }
}

TEST_F(DocumentMaskTest, TheTeacherOfDistillationStaysWithinDocumentsToo) {
  const double loss = Loss({ids_, 0, SecondDocument(), {{kStart}}}, 4, false, "distill");
  EXPECT_GT(loss, 0);
  EXPECT_EQ(loss, Loss({OtherBeginning(), 0, SecondDocument(), {{kStart}}}, 4, false, "distill"));
}

TEST_F(DocumentMaskTest, SequencesHaveTheirOwnDocuments) {
  const at::Tensor ids = RandomIds(3, kT, 64, 4);
  const std::vector<std::vector<int64_t>> starts = {{1, 2, 19}, {}, {10}};
  double sum = 0;
  for (int64_t b = 0; b < 3; ++b) {
    sum += Loss({ids.narrow(0, b, 1), b, {}, {starts[static_cast<size_t>(b)]}}, 4);
  }
  EXPECT_NEAR(Loss({ids, 0, {}, starts}, 4), sum / 3, 1e-5);
}

// The first document's share of a layer's loss is what it has alone, by its tokens; the second's
// does not depend on it, in any layer.
TEST_F(DocumentMaskTest, TransferTeachesDocumentByDocument) {
  for (const char* objective : {"weights", "hybrid_outputs"}) {
    const at::Tensor other = OtherBeginning();
    std::map<std::string, at::Tensor> gradients[4];
    const auto both = TransferLosses({ids_, 0, {}, {{kStart}}}, objective, &gradients[0]);
    const auto changed = TransferLosses({other, 0, {}, {{kStart}}}, objective, &gradients[1]);
    const auto first = TransferLosses({ids_.narrow(1, 0, kStart), 0}, objective, &gradients[2]);
    const auto second = TransferLosses({other.narrow(1, 0, kStart), 0}, objective, &gradients[3]);
    const double share = static_cast<double>(kStart) / kT;
    for (size_t layer = 0; layer < both.size(); ++layer) {
      EXPECT_NEAR(both[layer] - changed[layer], share * (first[layer] - second[layer]),
                  1e-4 * std::abs(both[layer]))
          << objective << ", layer " << layer;
    }
    for (const auto& [name, gradient] : gradients[0]) {
      const at::Tensor difference = gradient.sub(gradients[1].at(name));
      const at::Tensor wanted = gradients[2].at(name).sub(gradients[3].at(name)).mul(share);
      EXPECT_LE(difference.sub(wanted).abs().max().item<double>(),
                1e-4 * gradient.abs().max().item<double>() + 1e-6)
          << objective << ", " << name;
    }
  }
}

TEST_F(DocumentMaskTest, SpansCoverEverySequence) {
  const auto spans = DocumentSpansOf({RandomIds(2, kT, 64, 4), 0, {}, {{5, 6}, {}}});
  ASSERT_EQ(spans.size(), 4u);
  EXPECT_EQ(spans[1].begin, 5);
  EXPECT_EQ(spans[1].count, 1);
  EXPECT_EQ(spans[2].count, kT - 6);
  EXPECT_EQ(spans[3].row, 1);
  EXPECT_EQ(spans[3].count, kT);
  EXPECT_TRUE(DocumentSpansOf({ids_, 0}).empty());
}

}  // namespace
}  // namespace tandem::testing
