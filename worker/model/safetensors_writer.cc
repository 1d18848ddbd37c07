#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/log.h"
#include "worker/model/safetensors.h"

namespace tandem {
namespace {

// The order of the `safetensors` package: wide types first, so that every tensor is aligned, then
// by name.
constexpr const char* kDtypeOrder[] = {"U64",     "I64",     "F64", "F32", "U32",
                                       "I32",     "BF16",    "F16", "U16", "I16",
                                       "F8_E4M3", "F8_E5M2", "I8",  "U8",  "BOOL"};

size_t DtypeRank(const std::string& dtype) {
  return static_cast<size_t>(std::find(std::begin(kDtypeOrder), std::end(kDtypeOrder), dtype) -
                             std::begin(kDtypeOrder));
}

std::string HeaderText(const std::vector<TensorView>& order,
                       const std::map<std::string, std::string>& metadata) {
  std::string text = "{";
  if (!metadata.empty()) {
    text += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) {
      text += (text.back() == '{' ? "" : ",") + JsonQuote(key) + ":" + JsonQuote(value);
    }
    text += "}";
  }
  int64_t at = 0;
  for (const TensorView& view : order) {
    if (text.size() > 1) text += ",";
    text += JsonQuote(view.name) + ":{\"dtype\":\"" + view.dtype + "\",\"shape\":[";
    for (size_t i = 0; i < view.shape.size(); ++i) {
      text += (i ? "," : "") + std::to_string(view.shape[i]);
    }
    text +=
        "],\"data_offsets\":[" + std::to_string(at) + "," + std::to_string(at + view.bytes) + "]}";
    at += view.bytes;
  }
  text += "}";
  text.append((8 - text.size() % 8) % 8, ' ');
  return text;
}

// Disk full has three names.
Status WriteFailure(const std::string& path) {
  if (errno == EFBIG) return ResourceExhausted(path + ": file too large for this disk or limit");
  return ErrnoStatus(path);
}

}  // namespace

Result<std::unique_ptr<SafetensorsWriter>> SafetensorsWriter::Create(
    const std::string& path, std::vector<TensorView> specs,
    const std::map<std::string, std::string>& metadata) {
  for (TensorView& spec : specs) {
    TANDEM_ASSIGN_OR_RETURN(spec.bytes, TensorBytes(spec.dtype, spec.shape));
  }
  std::sort(specs.begin(), specs.end(), [](const TensorView& a, const TensorView& b) {
    const size_t rank_a = DtypeRank(a.dtype), rank_b = DtypeRank(b.dtype);
    return rank_a != rank_b ? rank_a < rank_b : a.name < b.name;
  });
  std::vector<std::string> names;
  for (const TensorView& spec : specs) names.push_back(spec.name);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end()) return InvalidArgument(path + ": tensor '" + *twice + "' comes twice");

  std::unique_ptr<SafetensorsWriter> writer(new SafetensorsWriter);
  writer->path_ = path;
  writer->order_ = std::move(specs);
  writer->fd_ = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (writer->fd_ < 0) return WriteFailure(path);
  const std::string header = HeaderText(writer->order_, metadata);
  unsigned char length[8];
  for (int i = 0; i < 8; ++i) length[i] = static_cast<unsigned char>(header.size() >> (8 * i));
  TANDEM_RETURN_IF_ERROR(writer->Write(length, 8));
  TANDEM_RETURN_IF_ERROR(writer->Write(header.data(), static_cast<int64_t>(header.size())));
  return writer;
}

SafetensorsWriter::~SafetensorsWriter() {
  if (fd_ >= 0) close(fd_);
}

Status SafetensorsWriter::Write(const void* data, int64_t bytes) {
  const char* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t put = write(fd_, at, static_cast<size_t>(bytes));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return WriteFailure(path_);
    at += put;
    bytes -= put;
  }
  return Status::Ok();
}

Status SafetensorsWriter::Append(const void* data, int64_t bytes) {
  TANDEM_CHECK_MSG(next_ < order_.size(), path_ + ": more tensors than announced");
  const TensorView& spec = order_[next_++];
  TANDEM_CHECK_MSG(spec.bytes == bytes, path_ + ": " + spec.name + " has another size");
  return Write(data, bytes);
}

Status SafetensorsWriter::Finish() {
  TANDEM_CHECK_MSG(next_ == order_.size(), path_ + ": fewer tensors than announced");
  Status status = fsync(fd_) == 0 ? Status::Ok() : WriteFailure(path_);
  if (close(fd_) != 0 && status.ok()) status = WriteFailure(path_);
  fd_ = -1;
  return status;
}

Status WriteSafetensors(const std::string& path, const std::vector<TensorView>& tensors,
                        const std::map<std::string, std::string>& metadata) {
  TANDEM_ASSIGN_OR_RETURN(auto writer, SafetensorsWriter::Create(path, tensors, metadata));
  for (const TensorView& view : writer->order()) {
    TANDEM_RETURN_IF_ERROR(writer->Append(view.data, view.bytes));
  }
  return writer->Finish();
}

}  // namespace tandem
