#include "worker/data/label_mask.h"

#include <algorithm>

#include "base/files.h"

namespace tandem {
namespace {

Status CheckSameDocuments(const TokenShard& ids, const TokenShard& mask, const std::string& where) {
  if (ids.num_documents() != mask.num_documents()) {
    return InvalidArgument(where + ".mask has " + std::to_string(mask.num_documents()) +
                           " documents, " + where + " has " + std::to_string(ids.num_documents()) +
                           ": prepare again");
  }
  for (int64_t i = 0; i <= ids.num_documents(); ++i) {
    if (ids.DocumentBegin(i) == mask.DocumentBegin(i)) continue;
    return InvalidArgument(where + ".mask: document " + std::to_string(i) + " begins at token " +
                           std::to_string(mask.DocumentBegin(i)) + ", in " + where + " at " +
                           std::to_string(ids.DocumentBegin(i)) + ": prepare again");
  }
  return Status::Ok();
}

}  // namespace

Result<std::unique_ptr<TokenShard>> OpenLabelMask(const std::string& prefix,
                                                  const TokenShard& ids) {
  if (!PathExists(prefix + ".mask.idx")) return std::unique_ptr<TokenShard>();
  TANDEM_ASSIGN_OR_RETURN(std::unique_ptr<TokenShard> mask, TokenShard::Open(prefix + ".mask"));
  TANDEM_RETURN_IF_ERROR(CheckSameDocuments(ids, *mask, prefix));
  return mask;
}

std::vector<int64_t> LabelledChunks(const TokenShard& mask, int64_t T) {
  std::vector<int64_t> chunks;
  std::vector<int64_t> labels(static_cast<size_t>(T));
  for (int64_t chunk = 0; chunk < mask.NumChunks(T); ++chunk) {
    mask.ReadChunk(chunk, T, labels.data());
    const bool has_label =
        std::any_of(labels.begin() + 1, labels.end(), [](int64_t label) { return label != 0; });
    if (has_label) chunks.push_back(chunk);
  }
  return chunks;
}

}  // namespace tandem
