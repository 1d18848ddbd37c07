#include <gtest/gtest.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"

namespace tandem {
namespace {

Result<int> Half(int n) {
  if (n % 2 != 0) return InvalidArgument("n is " + std::to_string(n) + "; must be even");
  return n / 2;
}

Result<int> Quarter(int n) {
  TANDEM_ASSIGN_OR_RETURN(const int half, Half(n));
  return Half(half);
}

TEST(Status, MacrosPassErrorsUp) {
  EXPECT_EQ(Quarter(8).value(), 2);
  EXPECT_EQ(Quarter(6).status().ToString(), "INVALID_ARGUMENT: n is 3; must be even");
  EXPECT_EQ(Quarter(6).status().WithContext("quarter").message(), "quarter: n is 3; must be even");
}

TEST(StatusDeathTest, ChecksAreOnInEveryBuild) {
  EXPECT_DEATH(TANDEM_CHECK_MSG(1 == 2, "one is not two"), "one is not two");
  EXPECT_DEATH((void)Half(3).value(), "must be even");
}

TEST(Log, QuotesControlCharactersAndBadUtf8) {
  EXPECT_EQ(JsonQuote("a\"\\\n\x01"), "\"a\\\"\\\\\\n\\u0001\"");
  EXPECT_EQ(JsonQuote("\xC3\xA9\xFF"), "\"\xC3\xA9\xEF\xBF\xBD\"");
}

TEST(Clock, FormatsUtc) {
  EXPECT_STREQ(FormatUtc(1'700'000'000'123).text, "2023-11-14T22:13:20.123Z");
}

}  // namespace
}  // namespace tandem
