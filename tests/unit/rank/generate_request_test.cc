#include <gtest/gtest.h>

#include <string>

#include "worker/rank/generate.h"

namespace tandem {
namespace {

std::string Request(const std::string& prompt) {
  return R"({"version":1,"model":"m","mode":"served","prompt":)" + prompt +
         R"(,"max_tokens":4,"temperature":0,"top_p":1,"seed":0,"stop":[],"threads":0,"device":"cpu",)"
         R"("dtype":"float32"})";
}

// It took 64 tokens at most once, like the short lists of a plan.
TEST(GenerateRequest, TakesLongPrompts) {
  std::string prompt = "[1";
  for (int i = 0; i < 5000; ++i) prompt += ",2";
  const auto request = ParseGenerateRequest(Request(prompt + "]"));
  ASSERT_TRUE(request.ok()) << request.status().ToString();
  EXPECT_EQ(request->prompt.size(), 5001u);
}

TEST(GenerateRequest, RefusesAnEmptyPromptAndUnknownKeys) {
  EXPECT_NE(ParseGenerateRequest(Request("[]")).status().message().find("prompt has no tokens"),
            std::string::npos);
  EXPECT_NE(ParseGenerateRequest(R"({"more":1})").status().message().find("more"),
            std::string::npos);
}

}  // namespace
}  // namespace tandem
