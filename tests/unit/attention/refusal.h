// What an operator says when it refuses a call.
#pragma once

#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <string>

namespace tandem::testing {

// `call` throws c10::Error, and its message holds `words`.
template <class Call>
void ExpectRefusal(const std::string& words, const Call& call) {
  std::string said = "accepted";
  try {
    call();
  } catch (const c10::Error& e) {
    said = e.what_without_backtrace();
  }
  EXPECT_NE(said.find(words), std::string::npos) << words << "\n" << said;
}

}  // namespace tandem::testing
