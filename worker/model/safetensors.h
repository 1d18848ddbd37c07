// Safetensors: how weights come in and go out. Torch-free.
//
// The reader maps a file and hands out views; the writer streams. It exists because the files come
// from strangers: every size, offset and name is checked before a byte of data is touched, and
// nothing is ever executed (no pickle). Layout: u64 little-endian header length, JSON {name:
// {"dtype", "shape", "data_offsets": [begin, end)}} with an optional string map "__metadata__",
// spaces up to a multiple of 8, then the data without overlap or hole. A view lives as long as the
// object that gave it. Immutable after Open: any thread. A file that breaks a rule is
// kInvalidArgument naming file, tensor, value and what is allowed; files that cannot be read keep
// errno's words. Do not truncate a file while it is mapped: the kernel answers a later read with
// SIGBUS.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"

namespace tandem {

inline constexpr int64_t kMaxSafetensorsHeaderBytes = 100'000'000;

// A tensor's place in a mapped file, or in the caller's memory when writing. The data may be
// unaligned in foreign files: copy it with memcpy.
struct TensorView {
  std::string name;
  std::string dtype;  // F64 F32 F16 BF16 I64 I32 I16 I8 U64 U32 U16 U8 BOOL F8_E4M3 F8_E5M2
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;
  int64_t bytes = 0;
};

// Bytes per element, 0 for a dtype that is not known.
int64_t SafetensorsDtypeBytes(const std::string& dtype);
// The product of the shape times the element's bytes; kInvalidArgument when a dimension is
// negative, the product does not fit 63 bits or the dtype is unknown.
Result<int64_t> TensorBytes(const std::string& dtype, const std::vector<int64_t>& shape);

// A parsed header: what can be known without touching data. Pure, so that it can be fuzzed.
struct SafetensorsHeader {
  std::vector<TensorView> tensors;  // in the order of their data; `data` is null
  std::vector<int64_t> begins;      // offset of each from the start of the data
  std::map<std::string, std::string> metadata;
  int64_t data_begin = 0;  // offset in the file
};
// `prefix` holds at least the length word and the header; file_bytes is the size of the whole file;
// `where` opens the messages.
Result<SafetensorsHeader> ParseSafetensorsHeader(const std::byte* prefix, int64_t prefix_bytes,
                                                 int64_t file_bytes, const std::string& where);

// One mapped file.
class SafetensorsFile {
 public:
  static Result<std::unique_ptr<SafetensorsFile>> Open(const std::string& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::string& path() const { return path_; }
  const std::vector<TensorView>& tensors() const { return header_.tensors; }
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }
  const TensorView* Find(const std::string& name) const;  // null if absent

 private:
  SafetensorsFile() = default;
  std::string path_;
  SafetensorsHeader header_;
  std::map<std::string, size_t> index_;
  void* mapping_ = nullptr;
  size_t mapping_bytes_ = 0;
};

// A model directory: model.safetensors, or the shards that model.safetensors.index.json names
// (weight_map). A directory with pickle files alone (*.bin, *.pt) is refused with the way to
// convert them.
class SafetensorsModel {
 public:
  static Result<SafetensorsModel> Open(const std::string& directory);

  const std::map<std::string, TensorView>& tensors() const { return tensors_; }
  const TensorView* Find(const std::string& name) const;  // null if absent
  // The files read, in order of name; for digests.
  std::vector<std::string> FilePaths() const;
  const std::string& directory() const { return directory_; }

 private:
  std::string directory_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, TensorView> tensors_;
};

// Writes one file front to back, so that only one tensor at a time is in memory. Byte for byte what
// the `safetensors` package writes (wide dtypes first, then by name). Confined to one thread. An
// abandoned writer leaves a broken file: write beside and rename.
class SafetensorsWriter {
 public:
  // specs: name, dtype and shape count, data is ignored. Fails on duplicates and unknown dtypes.
  static Result<std::unique_ptr<SafetensorsWriter>> Create(
      const std::string& path, std::vector<TensorView> specs,
      const std::map<std::string, std::string>& metadata);
  ~SafetensorsWriter();
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  // The order in which Append wants the tensors.
  const std::vector<TensorView>& order() const { return order_; }
  // The next tensor's bytes, whole.
  Status Append(const void* data, int64_t bytes);
  // fsync and close; every tensor must have been appended.
  Status Finish();

 private:
  SafetensorsWriter() = default;
  Status Write(const void* data, int64_t bytes);
  std::string path_;
  int fd_ = -1;
  std::vector<TensorView> order_;
  size_t next_ = 0;
};

// All at once, fsynced. kResourceExhausted when the disk is full.
Status WriteSafetensors(const std::string& path, const std::vector<TensorView>& tensors,
                        const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

}  // namespace tandem
