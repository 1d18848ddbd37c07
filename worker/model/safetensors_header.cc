// The parser of safetensors headers: pure, and the only code that looks at a stranger's bytes.
#include <algorithm>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "worker/model/safetensors.h"

namespace tandem {
namespace {

using nlohmann::json;

constexpr size_t kMaxRank = 16;
constexpr const char* kDtypes =
    "F64 F32 F16 BF16 I64 I32 I16 I8 U64 U32 U16 U8 BOOL F8_E4M3 F8_E5M2";

// Names come from strangers: short and printable in messages.
std::string Shown(const std::string& name) {
  std::string shown = name.substr(0, 120);
  for (char& c : shown) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return "'" + shown + (name.size() > 120 ? "...'" : "'");
}

// Parses without exceptions; the duplicate of a key (JSON takes the last silently) ends in
// `duplicate`.
json ParseStrictly(const char* begin, const char* end, std::string* duplicate) {
  std::vector<std::set<std::string>> keys;
  bool too_deep = false;
  const json::parser_callback_t watch = [&](int depth, json::parse_event_t event, json& value) {
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end && !keys.empty()) keys.pop_back();
    if (event == json::parse_event_t::key && !keys.empty()) {
      const auto& key = value.get_ref<const std::string&>();
      if (!keys.back().insert(key).second && duplicate->empty()) *duplicate = key;
    }
    if (depth > 4) too_deep = true;
    return depth <= 4;
  };
  json parsed = json::parse(begin, end, watch, /*allow_exceptions=*/false);
  return too_deep ? json(json::value_t::discarded) : parsed;
}

struct Entry {
  TensorView view;
  int64_t begin = 0, end = 0;
};

bool IsSize(const json& value) {
  return value.is_number_unsigned() &&
         value.get<uint64_t>() <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
}

Status ParseShape(const json& value, const std::string& tensor, std::vector<int64_t>* shape) {
  if (!value.is_array() || value.size() > kMaxRank) {
    return InvalidArgument(tensor + ".shape must be a list of at most 16 sizes");
  }
  for (const json& size : value) {
    if (!IsSize(size)) {
      return InvalidArgument(tensor + ".shape holds " + size.dump() +
                             "; sizes are integers in [0, 2^63)");
    }
    shape->push_back(size.get<int64_t>());
  }
  return Status::Ok();
}

Status ParseEntry(const json& value, const std::string& tensor, int64_t data_bytes, Entry* entry) {
  if (!value.is_object()) return InvalidArgument(tensor + " must be an object");
  for (const auto& item : value.items()) {
    if (item.key() != "dtype" && item.key() != "shape" && item.key() != "data_offsets") {
      return InvalidArgument(tensor + " has the key " + Shown(item.key()) +
                             "; only dtype, shape and data_offsets are known");
    }
  }
  for (const char* key : {"dtype", "shape", "data_offsets"}) {
    if (!value.contains(key)) return InvalidArgument(tensor + " has no " + key);
  }
  if (!value["dtype"].is_string()) return InvalidArgument(tensor + ".dtype must be a string");
  entry->view.dtype = value["dtype"].get<std::string>();
  if (SafetensorsDtypeBytes(entry->view.dtype) == 0) {
    return InvalidArgument(tensor + ".dtype is " + Shown(entry->view.dtype) +
                           "; allowed: " + kDtypes);
  }
  TANDEM_RETURN_IF_ERROR(ParseShape(value["shape"], tensor, &entry->view.shape));
  const json& offsets = value["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2 || !IsSize(offsets[0]) || !IsSize(offsets[1])) {
    return InvalidArgument(tensor + ".data_offsets must be two integers [begin, end)");
  }
  entry->begin = offsets[0].get<int64_t>();
  entry->end = offsets[1].get<int64_t>();
  if (entry->begin > entry->end || entry->end > data_bytes) {
    return InvalidArgument(tensor + ".data_offsets are " + offsets.dump() +
                           "; must ascend within the file's " + std::to_string(data_bytes) +
                           " bytes of data: the file is cut short or its header is wrong");
  }
  const Result<int64_t> bytes = TensorBytes(entry->view.dtype, entry->view.shape);
  if (!bytes.ok()) return InvalidArgument(tensor + ": " + bytes.status().message());
  if (*bytes != entry->end - entry->begin) {
    return InvalidArgument(
        tensor + ".data_offsets hold " + std::to_string(entry->end - entry->begin) + " bytes; " +
        entry->view.dtype + " " + value["shape"].dump() + " needs " + std::to_string(*bytes));
  }
  entry->view.bytes = *bytes;
  return Status::Ok();
}

Status ParseMetadata(const json& value, const std::string& where,
                     std::map<std::string, std::string>* out) {
  if (!value.is_object()) return InvalidArgument(where + ": __metadata__ must be an object");
  for (const auto& item : value.items()) {
    if (!item.value().is_string()) {
      return InvalidArgument(where + ": __metadata__ key " + Shown(item.key()) +
                             " must be a string");
    }
    out->emplace(item.key(), item.value().get<std::string>());
  }
  return Status::Ok();
}

// Sorted by place, the tensors must fill the data: no overlap, no hole, nothing after the last.
Status CheckCoverage(const std::vector<Entry>& entries, int64_t data_bytes,
                     const std::string& where) {
  int64_t at = 0;
  for (const Entry& entry : entries) {
    if (entry.begin != at) {
      return InvalidArgument(where + ": tensor " + Shown(entry.view.name) + " begins at byte " +
                             std::to_string(entry.begin) + " of the data; must begin at " +
                             std::to_string(at) + " (no overlap, no hole)");
    }
    at = entry.end;
  }
  if (at != data_bytes) {
    return InvalidArgument(where + ": the tensors end at byte " + std::to_string(at) +
                           " of the data, the file holds " + std::to_string(data_bytes) +
                           "; they must be equal");
  }
  return Status::Ok();
}

Result<int64_t> ReadHeaderLength(const std::byte* prefix, int64_t prefix_bytes, int64_t file_bytes,
                                 const std::string& where) {
  if (prefix_bytes < 8) {
    return InvalidArgument(where + " has " + std::to_string(prefix_bytes) +
                           " bytes; a safetensors file has at least 8");
  }
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | std::to_integer<uint64_t>(prefix[i]);
  if (length > static_cast<uint64_t>(kMaxSafetensorsHeaderBytes)) {
    return InvalidArgument(where + ": the header's length is " + std::to_string(length) +
                           " bytes; at most 100000000 are allowed: not a safetensors file?");
  }
  if (length < 2 || static_cast<int64_t>(length) > std::min(prefix_bytes, file_bytes) - 8) {
    return InvalidArgument(where + ": the header's length is " + std::to_string(length) +
                           " bytes; the file has " + std::to_string(file_bytes - 8) +
                           " after the length word, and 2 are the least");
  }
  if (prefix[8] != std::byte{'{'}) {
    return InvalidArgument(where + ": the header must start with '{'");
  }
  return static_cast<int64_t>(length);
}

}  // namespace

int64_t SafetensorsDtypeBytes(const std::string& dtype) {
  for (const char* name : {"F64", "I64", "U64"}) {
    if (dtype == name) return 8;
  }
  for (const char* name : {"F32", "I32", "U32"}) {
    if (dtype == name) return 4;
  }
  for (const char* name : {"F16", "BF16", "I16", "U16"}) {
    if (dtype == name) return 2;
  }
  for (const char* name : {"I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2"}) {
    if (dtype == name) return 1;
  }
  return 0;
}

Result<int64_t> TensorBytes(const std::string& dtype, const std::vector<int64_t>& shape) {
  int64_t bytes = SafetensorsDtypeBytes(dtype);
  if (bytes == 0) {
    return InvalidArgument("dtype " + Shown(dtype) + " is not known; allowed: " + kDtypes);
  }
  for (const int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(bytes, size, &bytes)) {
      return InvalidArgument("a shape's product must lie in [0, 2^63); the size " +
                             std::to_string(size) + " leads out of it");
    }
  }
  return bytes;
}

Result<SafetensorsHeader> ParseSafetensorsHeader(const std::byte* prefix, int64_t prefix_bytes,
                                                 int64_t file_bytes, const std::string& where) {
  TANDEM_ASSIGN_OR_RETURN(const int64_t length,
                          ReadHeaderLength(prefix, prefix_bytes, file_bytes, where));
  const char* text = reinterpret_cast<const char*>(prefix) + 8;
  std::string duplicate;
  const json root = ParseStrictly(text, text + length, &duplicate);
  if (!root.is_object()) {
    return InvalidArgument(where + ": the header is not a JSON object of tensors");
  }
  if (!duplicate.empty()) {
    return InvalidArgument(where + ": the header names " + Shown(duplicate) + " twice");
  }
  SafetensorsHeader header;
  header.data_begin = 8 + length;
  const int64_t data_bytes = file_bytes - header.data_begin;
  std::vector<Entry> entries;
  for (const auto& item : root.items()) {
    if (item.key() == "__metadata__") {
      TANDEM_RETURN_IF_ERROR(ParseMetadata(item.value(), where, &header.metadata));
      continue;
    }
    Entry entry;
    entry.view.name = item.key();
    TANDEM_RETURN_IF_ERROR(
        ParseEntry(item.value(), where + ": tensor " + Shown(item.key()), data_bytes, &entry));
    entries.push_back(std::move(entry));
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::tie(a.begin, a.end, a.view.name) < std::tie(b.begin, b.end, b.view.name);
  });
  TANDEM_RETURN_IF_ERROR(CheckCoverage(entries, data_bytes, where));
  for (Entry& entry : entries) {
    header.begins.push_back(entry.begin);
    header.tensors.push_back(std::move(entry.view));
  }
  return header;
}

}  // namespace tandem
