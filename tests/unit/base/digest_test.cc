#include "base/digest.h"

#include <gtest/gtest.h>

#include "base/files.h"

namespace tandem {
namespace {

TEST(Sha256, KnownAnswers) {
  EXPECT_EQ(Sha256Hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Sha256, OfFileEqualsOfBytesAndNamesAMissingFile) {
  const std::string path = testing::TempDir() + "sha256_of_file";
  const std::string content(3'000'000, 'x');
  ASSERT_TRUE(WriteFileDurably(path, content).ok());
  EXPECT_EQ(Sha256OfFile(path).value(), Sha256Hex(content));
  const auto missing = Sha256OfFile(path + ".missing");
  EXPECT_EQ(missing.status().code(), Code::kNotFound);
  EXPECT_NE(missing.status().message().find(".missing"), std::string::npos);
}

// RFC 3720, appendix B.4.
TEST(Crc32c, KnownAnswersAndChaining) {
  EXPECT_EQ(Crc32c("123456789", 9), 0xE3069283u);
  const std::string zeros(32, '\0');
  EXPECT_EQ(Crc32c(zeros.data(), zeros.size()), 0x8A9136AAu);
  const std::string text = "a longer text than eight bytes, cut at an odd place";
  const uint32_t whole = Crc32c(text.data(), text.size());
  EXPECT_EQ(Crc32c(text.data() + 13, text.size() - 13, Crc32c(text.data(), 13)), whole);
}

}  // namespace
}  // namespace tandem
