// Small parts: flags, page tokens, names, UTF-8, errors on the wire.
#include <gtest/gtest.h>

#include "base/flag_text.h"
#include "coordinator/flags.h"
#include "coordinator/service/job_names.h"
#include "coordinator/service/page_token.h"
#include "coordinator/service/rich_error.h"
#include "coordinator/service/utf8.h"

namespace tandem::service {
namespace {

ParsedFlags Parse(std::vector<const char*> words) {
  words.insert(words.begin(), "tandem-coordinator");
  return ParseFlags(static_cast<int>(words.size()), words.data());
}

TEST(Flags, AreReadAndDefaulted) {
  const ParsedFlags parsed =
      Parse({"--state", "/s", "--lease-ms", "1500", "--heartbeat-ms", "100"});
  EXPECT_TRUE(parsed.errors.empty());
  EXPECT_EQ(parsed.flags.state, "/s");
  EXPECT_EQ(parsed.flags.listen, "127.0.0.1:7600");
  EXPECT_EQ(parsed.flags.metrics, "127.0.0.1:7601");
  EXPECT_EQ(parsed.flags.lease_ms, 1500);
  EXPECT_FALSE(parsed.flags.die_with_parent);
}

TEST(Flags, AllErrorsComeAtOnce) {
  const ParsedFlags parsed = Parse({"--listen", "0.0.0.0:7600", "--metrics", "nonsense",
                                    "--lease-ms", "soon", "--retry-backoff-ms", "0", "--what"});
  std::string all;
  for (const std::string& error : parsed.errors) all += error + "\n";
  for (const char* part :
       {"--state is missing", "only loopback addresses", "--metrics is 'nonsense'",
        "--lease-ms is 'soon'", "--retry-backoff-ms is '0'", "--what"}) {
    EXPECT_NE(all.find(part), std::string::npos) << part << " not in\n" << all;
  }
}

TEST(Flags, AHeartbeatMustFitIntoTheLease) {
  EXPECT_EQ(Parse({"--state", "/s", "--lease-ms", "1000", "--heartbeat-ms", "600"}).errors.size(),
            1u);
}

TEST(Flags, LoopbackIsRecognised) {
  for (const char* host : {"127.0.0.1", "127.1.2.3", "localhost", "[::1]"}) {
    EXPECT_TRUE(IsLoopback(host)) << host;
  }
  for (const char* host : {"0.0.0.0", "[::]", "10.0.0.1", "example.org", "127.evil.example", ""}) {
    EXPECT_FALSE(IsLoopback(host)) << host;
  }
}

TEST(PageTokens, HmacMatchesRfc4231) {
  // Test case 2, and test case 6 (a key longer than a block).
  EXPECT_EQ(HmacSha256Hex("Jefe", "what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  EXPECT_EQ(HmacSha256Hex(std::string(131, '\xaa'),
                          "Test Using Larger Than Block-Size Key - Hash Key First"),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

TEST(PageTokens, OpenOnlyWhatWasSignedForThisFilter) {
  const PageTokens tokens("0123456789abcdef");
  const std::string token = tokens.Sign(42, "filter");
  EXPECT_EQ(*tokens.Open(token, "filter"), 42);
  EXPECT_FALSE(tokens.Open(token, "other").ok());
  EXPECT_FALSE(tokens.Open(token + "1", "filter").ok());
  EXPECT_FALSE(tokens.Open(token.substr(1), "filter").ok());
  EXPECT_FALSE(tokens.Open("", "filter").ok());
  EXPECT_FALSE(PageTokens("another key of 16").Open(token, "filter").ok());
}

TEST(Names, AreChecked) {
  for (const char* good : {"a", "0f3a", "job-1.b_c", "projects/p/jobs/j"}) {
    EXPECT_TRUE(CheckJobName(good).ok()) << good;
  }
  for (const char* bad : {"", "-a", ".", "..", "a b", "projects/p/jobs/", "projects//jobs/j",
                          "projects/p/jobs/a/b", "jobs/j"}) {
    EXPECT_FALSE(CheckJobName(bad).ok()) << bad;
  }
  EXPECT_EQ(*WorkerIdOf("workers/w"), "w");
  EXPECT_EQ(*WorkerIdOf("w"), "w");
  EXPECT_FALSE(WorkerIdOf("").ok());
  EXPECT_EQ(ProjectOf("projects/p/jobs/j"), "p");
}

TEST(Utf8, OnlyWholeCharactersPass) {
  EXPECT_EQ(ValidUtf8("plain \xc3\xa4 \xe2\x82\xac \xf0\x9f\x9a\xb2"),
            "plain \xc3\xa4 \xe2\x82\xac \xf0\x9f\x9a\xb2");
  EXPECT_EQ(ValidUtf8("\xc3"), "\xef\xbf\xbd");                          // cut
  EXPECT_EQ(ValidUtf8("\xc0\xaf"), "\xef\xbf\xbd\xef\xbf\xbd");          // overlong
  EXPECT_EQ(ValidUtf8("\xed\xa0\x80").find('\xed'), std::string::npos);  // surrogate
  EXPECT_EQ(ValidUtf8("\xf4\x90\x80\x80").find('\xf4'), std::string::npos);
}

TEST(RichErrors, NameEveryFieldOnce) {
  const grpc::Status status = ToGrpc({{"a", "a is 1; must be 2"}, {"b", "must be set"}});
  EXPECT_EQ(status.error_message(), "a is 1; must be 2\nb: must be set");
}

}  // namespace
}  // namespace tandem::service
