#include "worker/evaluate/suite_file.h"

#include <set>

#include "base/files.h"
#include "worker/data/json_file.h"

namespace tandem {
namespace {

using nlohmann::json;

const std::set<std::string> kMetrics = {"acc", "acc_norm", "lambada", "perplexity", "exact"};

bool IsChoice(const std::string& metric) {
  return metric == "acc" || metric == "acc_norm";
}

// Absent or not all numbers: empty.
template <typename T>
std::vector<T> NumbersOf(const json& object, const char* key) {
  std::vector<T> numbers;
  for (const json& value : ListOf(object, key)) {
    if (!value.is_number()) return {};
    numbers.push_back(value.get<T>());
  }
  return numbers;
}

// Empty when the item can be scored by its suite's metric.
std::string FaultOf(const SuiteItem& item, const std::string& metric, const TokenShard& requests) {
  const auto count = static_cast<int64_t>(item.starts.size());
  if (count < 1) return "has no starts";
  if (item.first < 0 || item.first + count > requests.num_documents()) {
    return "names requests " + std::to_string(item.first) + " ... " +
           std::to_string(item.first + count - 1) + "; suites.idx has " +
           std::to_string(requests.num_documents());
  }
  for (int64_t i = 0; i < count; ++i) {
    const int64_t length =
        requests.DocumentBegin(item.first + i + 1) - requests.DocumentBegin(item.first + i);
    const int64_t start = item.starts[static_cast<size_t>(i)];
    if (start < 1 || start >= length) {
      return "starts its continuation at token " + std::to_string(start) + " of a request of " +
             std::to_string(length) + "; must be in [1, " + std::to_string(length) + ")";
    }
  }
  if (IsChoice(metric) && (count < 2 || item.answer < 0 || item.answer >= count)) {
    return "has " + std::to_string(count) + " choices and the answer " +
           std::to_string(item.answer) + "; needs at least 2 choices and an answer among them";
  }
  if (metric == "acc_norm" && static_cast<int64_t>(item.lengths.size()) != count) {
    return "has " + std::to_string(item.lengths.size()) + " lengths for " + std::to_string(count) +
           " choices";
  }
  for (const double characters : item.lengths) {
    if (!(characters > 0)) return "has a choice without characters";
  }
  if (metric == "perplexity" && !(item.words > 0 && item.bytes > 0)) {
    return "needs words and bytes above 0";
  }
  if ((metric == "lambada" || metric == "exact") && count != 1) {
    return "has " + std::to_string(count) + " requests; metric " + metric + " takes one";
  }
  return "";
}

Result<SuiteItem> ParseItem(const json& entry, const std::string& metric,
                            const TokenShard& requests) {
  if (!entry.is_object()) return InvalidArgument("is not an object");
  SuiteItem item;
  item.first = IntegerOf(entry, "first");
  item.starts = NumbersOf<int64_t>(entry, "starts");
  item.lengths = NumbersOf<double>(entry, "lengths");
  item.answer = IntegerOf(entry, "answer");
  item.group = TextOf(entry, "group");
  item.words = RealOf(entry, "words");
  item.bytes = RealOf(entry, "bytes");
  const std::string fault = FaultOf(item, metric, requests);
  if (!fault.empty()) return InvalidArgument(fault);
  return item;
}

Result<Suite> ParseSuite(const json& entry, const TokenShard& requests) {
  Suite suite;
  suite.name = TextOf(entry, "name");
  suite.metric = TextOf(entry, "metric");
  if (suite.name.empty() || !kMetrics.contains(suite.metric)) {
    return InvalidArgument("has the name \"" + suite.name + "\" and the metric \"" + suite.metric +
                           "\"; needs a name and acc, acc_norm, lambada, perplexity or exact");
  }
  const auto parse = [&](const json& item) { return ParseItem(item, suite.metric, requests); };
  TANDEM_ASSIGN_OR_RETURN(suite.items,
                          ParseEntries<SuiteItem>("(" + suite.name + ")", entry, "items", parse));
  if (suite.items.empty()) return InvalidArgument("(" + suite.name + ") has no items");
  return suite;
}

}  // namespace

Result<SuiteFile> ReadSuites(const std::string& folder, int64_t vocab_size) {
  const std::string path = JoinPath(folder, "suites.json");
  SuiteFile file;
  if (!PathExists(path)) return file;
  TANDEM_ASSIGN_OR_RETURN(const json root, ReadJsonObject(path));
  if (IntegerOf(root, "version") != 1 || !MemberOf(root, "suites").is_array()) {
    return InvalidArgument(path + " is not a suites file of version 1: prepare again");
  }
  TANDEM_ASSIGN_OR_RETURN(file.requests, TokenShard::Open(JoinPath(folder, "suites")));
  const int64_t max_id = file.requests->num_tokens() > 0 ? file.requests->MaxId() : 0;
  if (vocab_size > 0 && max_id >= vocab_size) {
    return InvalidArgument(path + ": suites.bin holds the id " + std::to_string(max_id) +
                           "; must be in [0, " + std::to_string(vocab_size) +
                           "), the model's vocabulary");
  }
  file.bos = TextOf(root, "bos");
  const auto parse = [&](const json& entry) { return ParseSuite(entry, *file.requests); };
  TANDEM_ASSIGN_OR_RETURN(file.suites, ParseEntries<Suite>(path, root, "suites", parse));
  return file;
}

}  // namespace tandem
