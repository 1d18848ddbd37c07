#include "worker/rank/not_built.h"

namespace tandem {
namespace {

void CheckAttentionBuilt(const AttentionPlan& attention, std::vector<std::string>& missing) {
  const auto refuse = [&](bool is_asked, const std::string& what) {
    if (is_asked) missing.push_back("attention." + what + " is not built into this rank");
  };
  refuse(attention.cache_size > 0, "cache_size");
}

}  // namespace

std::vector<std::string> NotBuilt(const Plan& plan) {
  std::vector<std::string> missing;
  CheckAttentionBuilt(plan.attention, missing);
  return missing;
}

}  // namespace tandem
