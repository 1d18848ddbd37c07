#include "coordinator/service/rich_error.h"

#include <string_view>

namespace tandem::service {
namespace {

constexpr size_t kMessageBytes = 3000;
constexpr size_t kDetailBytes = 2500;

// The wire format of three small messages of google.rpc, which Debian does not package:
//   Status    { int32 code = 1; string message = 2; repeated Any details = 3; }
//   Any       { string type_url = 1; bytes value = 2; }
//   BadRequest{ repeated FieldViolation field_violations = 1; }  FieldViolation { string field = 1,
//   description = 2; } ErrorInfo { string reason = 1; string domain = 2; }
void AppendVarint(std::string* out, size_t value) {
  while (value >= 0x80) {
    out->push_back(static_cast<char>((value & 0x7f) | 0x80));
    value >>= 7;
  }
  out->push_back(static_cast<char>(value));
}

void AppendBytes(std::string* out, int field, std::string_view bytes) {
  AppendVarint(out, static_cast<size_t>(field) << 3 | 2);
  AppendVarint(out, bytes.size());
  out->append(bytes);
}

std::string Any(const char* type, std::string_view value) {
  std::string any;
  AppendBytes(&any, 1, std::string("type.googleapis.com/google.rpc.") + type);
  AppendBytes(&any, 2, value);
  return any;
}

std::string Details(Code code, std::string_view bad_request) {
  std::string info;
  AppendBytes(&info, 1, CodeName(code));
  AppendBytes(&info, 2, "tandem");
  std::string details;
  AppendVarint(&details, 1 << 3);
  AppendVarint(&details, static_cast<size_t>(code));
  AppendBytes(&details, 3, Any("ErrorInfo", info));
  if (!bad_request.empty()) AppendBytes(&details, 3, Any("BadRequest", bad_request));
  return details;
}

// Cut between characters: a trailer must be valid UTF-8.
std::string Cut(std::string text, size_t limit) {
  if (text.size() <= limit) return text;
  while (limit > 0 && (static_cast<unsigned char>(text[limit]) & 0xc0) == 0x80) --limit;
  return text.substr(0, limit) + " ...";
}

}  // namespace

grpc::Status ToGrpc(const Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return {static_cast<grpc::StatusCode>(status.code()), Cut(status.message(), kMessageBytes),
          Details(status.code(), "")};
}

grpc::Status ToGrpc(const std::vector<FieldViolation>& violations) {
  TANDEM_CHECK(!violations.empty());
  std::string message;
  std::string bad_request;
  size_t shown = 0;
  for (const auto& [field, text] : violations) {
    const std::string line = text.rfind(field, 0) == 0 ? text : field + ": " + text;
    if (message.size() + line.size() > kMessageBytes && shown > 0) break;
    message += (shown > 0 ? "\n" : "") + Cut(line, kMessageBytes);
    ++shown;
    std::string violation;
    AppendBytes(&violation, 1, Cut(field, 200));
    AppendBytes(&violation, 2, Cut(text, kDetailBytes / 2));
    if (bad_request.size() + violation.size() < kDetailBytes)
      AppendBytes(&bad_request, 1, violation);
  }
  if (shown < violations.size()) {
    message += "\n... and " + std::to_string(violations.size() - shown) + " more";
  }
  return {grpc::StatusCode::INVALID_ARGUMENT, message,
          Details(Code::kInvalidArgument, bad_request)};
}

}  // namespace tandem::service
