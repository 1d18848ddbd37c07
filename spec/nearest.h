// Nearest name: "did you mean" for fields, verbs and values. Pure; any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace tandem {

// The candidate with the smallest edit distance (insert, delete, replace, swap of neighbours), if
// that is at most a third of the word's length and at least one letter stays; otherwise "". Ties:
// the first.
std::string NearestName(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace tandem
