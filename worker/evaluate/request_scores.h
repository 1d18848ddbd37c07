// Request scores: the log-probability a model gives to spans of given sequences, and whether its
// own greedy choice would have been the same: the ground under suites and long-range recall.
//
// A request's last token is scored and not read: nothing follows from it, and so the model sees the
// tokens that lm-evaluation-harness feeds, which counts where blocks end with the sequence.
//
// Requests differ in length. Those of about the same length go through the model together, filled
// up on the right with token 0. That is exact: in softmax, window and linear attention alike row i
// reads rows 0 ... i only, and norms, projections and MLP work row by row, so what stands to the
// right of a request cannot reach its scores. (The probe state_swap mixes sequences and is no
// mode of requests.) Where a form's rows do depend on the length (AttentionForm::DependsOnLength),
// only requests of one length go together. Groups are made from the lengths alone and dealt to the
// ranks in turn; the figures are the same for any number of ranks. Collective; confined to the
// calling thread.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "worker/evaluate/passes.h"

namespace tandem {

// Tokens start ... start+length-1, predicted from the rows one before; start >= 1, length >= 1.
struct ScoredSpan {
  int64_t start = 0, length = 0;
  // With length 1: this token stands at `start` instead of the request's own. Choices of one token
  // after the same context are so many spans of one request: one forward pass.
  int64_t instead = -1;
};

struct Request {
  int64_t length = 0;  // tokens, >= 2, the last included
  std::vector<ScoredSpan> spans;
};

struct SpanScore {
  double log_probability = 0;  // sum over the span, in nats
  bool is_greedy = false;      // every token is the argmax of its row
};

class RequestBatches {
 public:
  // read(i, ids) fills the request's `length` ids; called from Score only.
  using ReadIds = std::function<void(int64_t request, int64_t* ids)>;
  RequestBatches(std::vector<Request> requests, ReadIds read);

  const std::vector<Request>& requests() const { return requests_; }
  // What goes through the model in one pass over all groups, filling included.
  int64_t num_tokens() const;
  int64_t mean_length() const;  // of a request, filling included; 0 without requests
  int64_t num_spans() const { return first_span_.back(); }
  // Groups that this rank runs.
  int64_t GroupsOf(int64_t rank, int64_t ranks) const;
  // All spans, request by request, on every rank.
  std::vector<SpanScore> Score(const EvaluatedModel& model, const EvaluationOptions& options,
                               Collective& collective, const GroupDone& done) const;

 private:
  // The group's targets that do not follow in what the model reads, in the order of its spans:
  // another token, or the group's last. ids (B,T): the requests whole, `read` tokens of them read.
  std::vector<OtherTarget> OthersOf(const std::vector<int64_t>& group, const at::Tensor& ids_BT,
                                    int64_t read) const;
  void RunGroup(const EvaluatedModel& model, const EvaluationOptions& options,
                const std::vector<int64_t>& group, std::vector<double>* scores) const;

  std::vector<Request> requests_;
  ReadIds read_;
  std::vector<int64_t> first_span_;           // of each request, with the end last
  std::vector<std::vector<int64_t>> groups_;  // requests, long ones first
};

}  // namespace tandem
