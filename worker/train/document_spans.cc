#include "worker/train/document_spans.h"

#include <ATen/ops/cat.h>

#include "base/status.h"

namespace tandem {

std::vector<DocumentSpan> DocumentSpansOf(const StepBatch& batch) {
  std::vector<DocumentSpan> spans;
  const int64_t T = batch.ids_BT.size(1);
  for (size_t row = 0; row < batch.document_starts.size(); ++row) {
    int64_t begin = 0;
    const auto end_at = [&](int64_t end) {
      TANDEM_CHECK(end > begin && end <= T);
      spans.push_back({static_cast<int64_t>(row), begin, end - begin});
      begin = end;
    };
    for (const int64_t start : batch.document_starts[row]) end_at(start);
    end_at(T);
  }
  return spans;
}

QkvTensors Within(const QkvTensors& qkv, const DocumentSpan& span) {
  const auto cut = [&span](const at::Tensor& x) {
    return x.narrow(0, span.row, 1).narrow(2, span.begin, span.count);
  };
  return {cut(qkv.q), cut(qkv.k), cut(qkv.v)};
}

at::Tensor JoinSpans(const std::vector<at::Tensor>& parts, const std::vector<DocumentSpan>& spans) {
  TANDEM_CHECK(!parts.empty() && parts.size() == spans.size());
  std::vector<at::Tensor> rows, of_row;
  for (size_t i = 0; i < parts.size(); ++i) {
    of_row.push_back(parts[i]);
    if (i + 1 < spans.size() && spans[i + 1].row == spans[i].row) continue;
    rows.push_back(at::cat(of_row, 2));
    of_row.clear();
  }
  return at::cat(rows, 0);
}

}  // namespace tandem
