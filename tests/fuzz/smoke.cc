// Runs a fuzz target without libFuzzer: the seeds, then mutations of them from a fixed generator,
// for about two seconds. The same inputs in the same order on every machine; only how far it gets
// differs. A crash leaves the input in crash-input, to be run alone:  fuzz_spec --one crash-input
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/files.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size);

namespace {

constexpr int64_t kBudgetMs = 2000;
constexpr int kLeastInputs = 500;
constexpr size_t kMaxBytes = 64 * 1024;
using Generator = std::mt19937_64;

size_t Below(Generator& generator, size_t limit) {
  return limit == 0 ? 0 : generator() % limit;
}

void FlipByte(std::string& text, Generator& generator) {
  if (!text.empty()) text[Below(generator, text.size())] = static_cast<char>(Below(generator, 256));
}
void DropPiece(std::string& text, Generator& generator) {
  text.erase(Below(generator, text.size()), 1 + Below(generator, 16));
}
void RepeatPiece(std::string& text, Generator& generator) {
  const size_t from = Below(generator, text.size());
  const std::string piece = text.substr(from, 1 + Below(generator, 32));
  text.insert(Below(generator, text.size()), piece);
}
void InsertWord(std::string& text, Generator& generator) {
  static const char* const kWords[] = {"0",
                                       "-1",
                                       "1e308",
                                       "99999999999999999999",
                                       ".nan",
                                       "~",
                                       "[",
                                       "]",
                                       "{",
                                       "}",
                                       "\"",
                                       ": ",
                                       "\n",
                                       "\n  ",
                                       "- ",
                                       "&a ",
                                       "*a",
                                       "<<: ",
                                       "!!str ",
                                       "---\n",
                                       "# ",
                                       "\xff",
                                       "\xed\xa0\x80",
                                       "null",
                                       "true",
                                       "| ",
                                       "> ",
                                       "? ",
                                       "\t",
                                       ","};
  text.insert(Below(generator, text.size()), kWords[Below(generator, std::size(kWords))]);
}

std::string Mutate(const std::vector<std::string>& seeds, Generator& generator) {
  std::string text = seeds[Below(generator, seeds.size())];
  const size_t rounds = 1 + Below(generator, 4);
  for (size_t i = 0; i < rounds; ++i) {
    switch (Below(generator, 5)) {
      case 0:
        FlipByte(text, generator);
        break;
      case 1:
        DropPiece(text, generator);
        break;
      case 2:
        RepeatPiece(text, generator);
        break;
      case 3:
        InsertWord(text, generator);
        break;
      default: {
        const std::string& other = seeds[Below(generator, seeds.size())];
        text = text.substr(0, Below(generator, text.size() + 1)) +
               other.substr(Below(generator, other.size() + 1));
        break;
      }
    }
  }
  if (text.size() > kMaxBytes) text.resize(kMaxBytes);
  return text;
}

void Run(const std::string& text) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(text.data()), text.size());
}

std::string running;  // what the target is running on

// A crash must not lose its input. Only async-signal-safe calls.
extern "C" void KeepInput(int signal) {
  const int file = open("crash-input", O_CREAT | O_TRUNC | O_WRONLY, 0644);
  if (file >= 0) (void)!write(file, running.data(), running.size());
  std::signal(signal, SIG_DFL);
  raise(signal);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3 && std::strcmp(argv[1], "--one") == 0) {
    Run(tandem::ReadFile(argv[2]).value());
    return 0;
  }
  std::vector<std::string> seeds;
  const std::string folder = argc == 2 ? argv[1] : "";
  const auto names = tandem::ListFolder(folder);
  for (const auto& name : names.ok() ? *names : std::vector<std::string>{}) {
    seeds.push_back(tandem::ReadFile(tandem::JoinPath(folder, name)).value());
  }
  if (seeds.empty()) {
    std::fprintf(stderr, "no seeds in '%s'; give a folder of inputs\n", folder.c_str());
    return 2;
  }
  for (const int fatal : {SIGABRT, SIGSEGV, SIGFPE, SIGBUS, SIGILL}) std::signal(fatal, KeepInput);
  for (const auto& seed : seeds) Run(seed);
  Generator generator(1);
  const int64_t deadline = tandem::Clock::System().MonotonicMs() + kBudgetMs;
  int inputs = 0;
  while (inputs < kLeastInputs || tandem::Clock::System().MonotonicMs() < deadline) {
    running = Mutate(seeds, generator);
    Run(running);
    ++inputs;
  }
  std::printf("%zu seeds and %d mutations\n", seeds.size(), inputs);
  return 0;
}
