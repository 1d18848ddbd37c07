#include "cli/python_module.h"

#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/digest.h"
#include "base/files.h"
#include "cli/embedded.h"

namespace tandem::cli {
namespace {

struct Interpreter {
  std::string python;
  std::string path;  // PYTHONPATH
};

std::string FromEnvironment(const char* name, const std::string& absent) {
  const char* value = std::getenv(name);
  return value == nullptr || *value == '\0' ? absent : value;
}

Result<Interpreter> FindInterpreter() {
  TANDEM_ASSIGN_OR_RETURN(const std::string bin, OwnFolder());
  const std::string root = AbsolutePath(JoinPath(bin, "../.."));
  const Interpreter found{FromEnvironment("TANDEM_PYTHON", root + "/.venv/bin/python"),
                          FromEnvironment("TANDEM_PYTHONPATH", root + "/python")};
  if (access(found.python.c_str(), X_OK) == 0) return found;
  return FailedPrecondition("no Python at " + found.python +
                            "; run deploy/setup.sh, or set TANDEM_PYTHON to an interpreter with "
                            "tokenizers");
}

std::vector<char*> Pointers(std::vector<std::string>& words) {
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  return pointers;
}

// The command's words; sets the environment that it inherits.
Result<std::vector<std::string>> Prepare(const std::string& module,
                                         const std::vector<std::string>& arguments) {
  TANDEM_ASSIGN_OR_RETURN(const Interpreter interpreter, FindInterpreter());
  setenv("PYTHONPATH", interpreter.path.c_str(), 1);
  setenv("PYTHONDONTWRITEBYTECODE", "1", 1);
  std::vector<std::string> words = {interpreter.python, "-m", module};
  words.insert(words.end(), arguments.begin(), arguments.end());
  return words;
}

}  // namespace

Result<std::string> DigestOfModules() {
  TANDEM_ASSIGN_OR_RETURN(const Interpreter interpreter, FindInterpreter());
  std::string content;
  for (const char* package : {"tandem", "hybrid_linear"}) {
    const std::string folder = JoinPath(interpreter.path, package);
    TANDEM_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListFolder(folder));
    for (const std::string& name : names) {
      if (!name.ends_with(".py")) continue;
      TANDEM_ASSIGN_OR_RETURN(const std::string digest, Sha256OfFile(JoinPath(folder, name)));
      content += name + " " + digest + "\n";
    }
  }
  return Sha256Hex(content);
}

Status BecomePython(const std::string& module, const std::vector<std::string>& arguments) {
  TANDEM_ASSIGN_OR_RETURN(std::vector<std::string> words, Prepare(module, arguments));
  sigset_t none;  // interrupt.h blocks signals in every thread
  sigemptyset(&none);
  pthread_sigmask(SIG_SETMASK, &none, nullptr);
  execv(words[0].c_str(), Pointers(words).data());
  return ErrnoStatus("cannot start " + words[0]);
}

Result<int> RunPython(const std::string& module, const std::vector<std::string>& arguments) {
  TANDEM_ASSIGN_OR_RETURN(std::vector<std::string> words, Prepare(module, arguments));
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  pid_t pid = -1;
  const int error =
      posix_spawn(&pid, words[0].c_str(), nullptr, &attributes, Pointers(words).data(), environ);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) return Internal("cannot start " + words[0] + ": " + std::strerror(error));
  int ended = 0;
  while (waitpid(pid, &ended, 0) < 0) {
    if (errno != EINTR) return ErrnoStatus("cannot wait for " + words[0]);
  }
  return WIFEXITED(ended) ? WEXITSTATUS(ended) : 128 + WTERMSIG(ended);
}

}  // namespace tandem::cli
