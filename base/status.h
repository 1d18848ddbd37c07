// Status and Result<T>: how every function of Tandem says that something did not work.
//
// Three kinds of failure (CONTRIBUTING.md): the world failed -> Status; the caller is wrong ->
// kInvalidArgument with the field's path in the message, all violations at once; we are wrong ->
// TANDEM_CHECK, which prints and aborts. Values are immutable after construction and may be passed
// between threads. Not for control flow inside a room.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <utility>

namespace tandem {

// gRPC's codes, by number, so that the service layer converts with a cast.
enum class Code {
  kOk = 0,
  kCancelled = 1,
  kUnknown = 2,
  kInvalidArgument = 3,
  kDeadlineExceeded = 4,
  kNotFound = 5,
  kAlreadyExists = 6,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kAborted = 10,
  kOutOfRange = 11,
  kUnimplemented = 12,
  kInternal = 13,
  kUnavailable = 14,
  kDataLoss = 15,
};

const char* CodeName(Code code);

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}
  static Status Ok() { return {}; }

  bool ok() const { return code_ == Code::kOk; }
  Code code() const { return code_; }
  const std::string& message() const { return message_; }
  // "INVALID_ARGUMENT: message", for logs and terminals.
  std::string ToString() const;
  // The same failure, said from one level up: "context: message".
  Status WithContext(const std::string& context) const;

 private:
  Code code_ = Code::kOk;
  std::string message_;
};

inline Status InvalidArgument(std::string m) {
  return {Code::kInvalidArgument, std::move(m)};
}
inline Status NotFound(std::string m) {
  return {Code::kNotFound, std::move(m)};
}
inline Status AlreadyExists(std::string m) {
  return {Code::kAlreadyExists, std::move(m)};
}
inline Status FailedPrecondition(std::string m) {
  return {Code::kFailedPrecondition, std::move(m)};
}
inline Status ResourceExhausted(std::string m) {
  return {Code::kResourceExhausted, std::move(m)};
}
inline Status OutOfRange(std::string m) {
  return {Code::kOutOfRange, std::move(m)};
}
inline Status Unavailable(std::string m) {
  return {Code::kUnavailable, std::move(m)};
}
inline Status DataLoss(std::string m) {
  return {Code::kDataLoss, std::move(m)};
}
inline Status Internal(std::string m) {
  return {Code::kInternal, std::move(m)};
}
// The current errno as a Status: "context: No such file or directory".
Status ErrnoStatus(const std::string& context);

template <typename T>
class [[nodiscard]] Result {
 public:
  // NOLINTBEGIN(google-explicit-constructor): `return value;` and `return status;`
  Result(T value) : value_(std::move(value)) {}
  Result(Status status) : status_(std::move(status)) {
    if (status_.ok()) status_ = Internal("Result made from an OK status");
  }
  // NOLINTEND
  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }
  T& value() & { return *Checked(); }
  const T& value() const& { return *const_cast<Result*>(this)->Checked(); }
  // By value: `for (auto& x : F().value())` must not dangle.
  T value() && { return std::move(*Checked()); }
  T& operator*() & { return *Checked(); }
  const T& operator*() const& { return *const_cast<Result*>(this)->Checked(); }
  T* operator->() { return Checked(); }
  const T* operator->() const { return const_cast<Result*>(this)->Checked(); }

 private:
  T* Checked() {
    if (!value_) {
      std::fprintf(stderr, "value() of a failed Result: %s\n", status_.ToString().c_str());
      std::abort();
    }
    return &*value_;
  }
  Status status_;
  std::optional<T> value_;
};

namespace internal {
[[noreturn]] void CheckFailed(const char* file, int line, const char* condition,
                              const std::string& detail);
}  // namespace internal

}  // namespace tandem

// Programmer errors. On in release; the process above restarts us.
#define TANDEM_CHECK(condition)                                                            \
  do {                                                                                     \
    if (!(condition)) ::tandem::internal::CheckFailed(__FILE__, __LINE__, #condition, ""); \
  } while (false)
#define TANDEM_CHECK_MSG(condition, detail)                                                      \
  do {                                                                                           \
    if (!(condition)) ::tandem::internal::CheckFailed(__FILE__, __LINE__, #condition, (detail)); \
  } while (false)
#define TANDEM_RETURN_IF_ERROR(expression)           \
  do {                                               \
    ::tandem::Status tandem_status_ = (expression);  \
    if (!tandem_status_.ok()) return tandem_status_; \
  } while (false)
#define TANDEM_CONCAT_INNER(a, b) a##b
#define TANDEM_CONCAT(a, b) TANDEM_CONCAT_INNER(a, b)
// TANDEM_ASSIGN_OR_RETURN(auto x, F());
#define TANDEM_ASSIGN_OR_RETURN(lhs, expression) \
  TANDEM_ASSIGN_OR_RETURN_IMPL(TANDEM_CONCAT(tandem_result_, __LINE__), lhs, expression)
#define TANDEM_ASSIGN_OR_RETURN_IMPL(result, lhs, expression) \
  auto result = (expression);                                 \
  if (!result.ok()) return result.status();                   \
  lhs = std::move(result).value()
