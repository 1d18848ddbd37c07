#include "coordinator/service/call_counter.h"

#include <string>
#include <string_view>

#include "base/status.h"

namespace tandem::service {
namespace {

// "/tandem.v1.JobService/GetJob" -> "JobService/GetJob"
std::string ShortMethod(std::string_view method) {
  const size_t slash = method.rfind('/');
  const size_t dot = method.substr(0, slash).rfind('.');
  return std::string(method.substr(dot == std::string_view::npos ? 1 : dot + 1));
}

class CallCounter : public grpc::experimental::Interceptor {
 public:
  CallCounter(Metrics& metrics, const Clock& clock, const char* method)
      : metrics_(metrics),
        clock_(clock),
        method_(ShortMethod(method)),
        start_ns_(clock.MonotonicNs()) {}

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    using grpc::experimental::InterceptionHookPoints;
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS)) {
      const auto code = static_cast<Code>(methods->GetSendStatus().error_code());
      metrics_.CountCall(method_, CodeName(code),
                         static_cast<double>(clock_.MonotonicNs() - start_ns_) * 1e-9);
    }
    methods->Proceed();
  }

 private:
  Metrics& metrics_;
  const Clock& clock_;
  const std::string method_;
  const int64_t start_ns_;
};

}  // namespace

grpc::experimental::Interceptor* CallCounterFactory::CreateServerInterceptor(
    grpc::experimental::ServerRpcInfo* info) {
  return new CallCounter(metrics_, clock_, info->method());
}

}  // namespace tandem::service
