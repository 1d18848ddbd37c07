// Any bytes as a job file: no crash, and what is accepted keeps its promises.
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/status.h"
#include "spec/spec.h"

namespace {

// The promises themselves must be able to fail: a planted fault in each accepted spec is seen.
void CheckTheChecks(tandem::v1::JobSpec spec, const std::string& canonical) {
  spec.mutable_evaluate()->set_sinks(0);
  TANDEM_CHECK_MSG(!tandem::Validate(spec).empty(), "a planted fault went unseen");
  TANDEM_CHECK_MSG(tandem::CanonicalJson(spec) != canonical, "a planted change went unseen");
}

}  // namespace

// Called once per input; aborts on a broken promise. Returns 0, as libFuzzer wants.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  const std::string text(reinterpret_cast<const char*>(bytes), size);
  const auto outcome = tandem::ReadSpec(text, "/base");
  for (const auto& violation : outcome.violations) TANDEM_CHECK(!violation.message.empty());
  // Also over what was read beside violations: a client could send just that.
  const auto violations = tandem::Validate(outcome.parsed.spec);
  if (!violations.empty()) return 0;
  const auto resolved = tandem::Resolve(outcome.parsed.spec);
  const std::string canonical = tandem::CanonicalJson(resolved);
  TANDEM_CHECK(tandem::Validate(resolved).empty());
  TANDEM_CHECK(tandem::CanonicalJson(tandem::Resolve(resolved)) == canonical);
  CheckTheChecks(resolved, canonical);
  const auto again = tandem::ReadSpec(tandem::SpecToYaml(resolved), "/");
  TANDEM_CHECK_MSG(again.violations.empty(), tandem::ViolationsToText(again.violations));
  TANDEM_CHECK_MSG(tandem::CanonicalJson(again.parsed.spec) == canonical, canonical);
  return 0;
}
