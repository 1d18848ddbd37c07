"""Checks the tree itself: arrows between rooms, sizes, names, banned calls, large files, paths in documents, batches.

    python3 tests/tidy.py            exit 1 and one line per violation
    python3 tests/tidy.py --test     plants violations and sees each one found

Standard library only; seconds. The rules are CONTRIBUTING.md's.
"""
import re
import subprocess
import sys
import tempfile
from pathlib import Path

# room -> what it may include besides std, POSIX and itself. The longest prefix of a file's folder is its room.
ARROWS = {
    "base": {"openssl", "CLI"},
    "kernels": set(),
    "spec": {"base", "proto", "protobuf", "yaml-cpp", "nlohmann"},
    "coordinator/core": {"base"},
    "coordinator/store": {"base", "coordinator/core", "nlohmann", "sqlite3"},
    "coordinator/service": {"base", "proto", "protobuf", "spec", "coordinator/core", "coordinator/loop", "grpc", "nlohmann", "openssl"},
    "coordinator/loop": {"base", "coordinator/core", "coordinator/store", "prometheus"},
    "coordinator": {"base", "proto", "spec", "coordinator/core", "coordinator/store", "coordinator/loop",
                    "coordinator/service", "grpc", "prometheus", "CLI", "nlohmann"},
    "cli": {"base", "proto", "protobuf", "spec", "grpc", "CLI", "nlohmann", "yaml-cpp"},
    "worker/plan": {"base", "nlohmann"},
    "worker/agent": {"base", "proto", "protobuf", "spec", "worker/plan", "grpc", "prometheus", "CLI", "nlohmann"},
    "worker/model/attention": {"kernels", "torch"},
    "worker/model": {"base", "kernels", "worker/plan", "worker/model/attention", "torch", "nlohmann"},
    "worker/comm": {"base", "mpi"},
    "worker/data": {"base", "nlohmann"},
    "worker/checkpoint": {"base", "worker/plan", "worker/model", "worker/model/attention", "worker/comm", "worker/data", "torch", "nlohmann"},
    "worker/train": {"base", "worker/plan", "worker/model", "worker/model/attention", "worker/comm", "worker/data", "worker/checkpoint", "torch",
                     "nlohmann"},
    "worker/evaluate": {"base", "worker/plan", "worker/model", "worker/model/attention", "worker/comm", "worker/data", "torch", "nlohmann"},
    "worker/export": {"base", "worker/plan", "worker/model", "worker/model/attention", "worker/comm", "worker/data", "torch", "nlohmann"},
    "worker/rank": {"base", "worker/plan", "worker/model", "worker/model/attention", "worker/comm", "worker/data", "worker/checkpoint",
                    "worker/train", "worker/evaluate", "worker/export", "torch", "mpi", "nlohmann"},
}
# Third parties, by the first part of an include path.
THIRD = {
    "grpc": "grpc", "grpcpp": "grpc", "google": "protobuf", "tandem": "proto", "yaml-cpp": "yaml-cpp",
    "nlohmann": "nlohmann", "ATen": "torch", "torch": "torch", "c10": "torch", "caffe2": "torch", "mpi.h": "mpi",
    "sqlite3.h": "sqlite3", "prometheus": "prometheus", "CLI": "CLI", "openssl": "openssl", "cuda_runtime.h": "cuda",
    "nccl.h": "nccl",
}
ROOMS = sorted(ARROWS, key=len, reverse=True)
BAD_NAMES = re.compile(r"(^|[_/])(utils?|helpers?|common|misc|manager)([_.]|$)")
BANNED = [
    (re.compile(r"(system|steady|high_resolution)_clock::now\(\)"), "time comes from base/clock.h",
     {"base/clock.cc", "cli", "tests"}),
    (re.compile(r"\.detach\(\)"), "no detached threads (tensors: use at::Tensor::detach through a named function)",
     {"worker/model", "worker/train", "worker/evaluate", "worker/export", "worker/checkpoint", "tests"}),
    (re.compile(r"using namespace (?!std::(string|chrono)_?literals)"), "no using namespace", {"tests"}),
    (re.compile(r"catch \(\.\.\.\)"), "only worker/rank/guard.cc catches everything", {"worker/rank/guard.cc", "tests"}),
    (re.compile(r"(sleep_for|\busleep|[^_]\bsleep)\("), "tests await a condition with a deadline",
     {"base", "cli", "worker", "coordinator", "spec"}),
]
FILE_LINES, TEST_LINES = 500, 600
LARGE_BYTES = 500_000
# Old offenders and their size: growing fails, shrinking lowers the number.
RATCHET = {}


def tracked(root):
    out = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=root, capture_output=True, text=True, check=True)
    return [f for f in out.stdout.splitlines() if (root / f).is_file()]


def room_of(name):
    return next((r for r in ROOMS if name.startswith(r + "/")), None)


def include_faults(name, text):
    room = room_of(name)
    if room is None:
        return
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
        if not match:
            continue
        path = match[2]
        target = room_of(path) or THIRD.get(path.split("/")[0])
        if target is None or target == room or target in ARROWS[room]:
            continue
        yield f"{name}:{number}: {room}/ must not include {path}; it may include {', '.join(sorted(ARROWS[room])) or 'nothing else'}"


def allowed(name, places):
    return any(name == p or name.startswith(p + "/") for p in places)


def text_faults(name, text):
    lines = text.count("\n") + 1
    limit = TEST_LINES if name.startswith("tests/") else FILE_LINES
    limit = max(limit, RATCHET.get(name, 0))
    if lines > limit:
        yield f"{name}: {lines} lines; at most {limit}"
    if BAD_NAMES.search(name):
        yield f"{name}: a name like this hides what the file is; say what it does"
    if name.endswith((".h", ".cc")):
        for pattern, why, places in BANNED:
            if allowed(name, places):
                continue
            for number, line in enumerate(text.splitlines(), 1):
                if pattern.search(line.split("//")[0]):
                    yield f"{name}:{number}: {why}"


def source_faults(root, files):
    """Each .cc stands in a CMakeLists.txt of its folder or one above."""
    lists = {f: (root / f).read_text() for f in files if f.endswith("CMakeLists.txt")}
    for name in files:
        if not name.endswith(".cc"):
            continue
        base = Path(name)
        owners = [l for l in lists if base.is_relative_to(Path(l).parent) and
                  re.search(rf"(^|[\s(]){re.escape(str(base.relative_to(Path(l).parent)))}($|[\s)])", lists[l])]
        if not owners:
            yield f"{name}: stands in no CMakeLists.txt, so nothing builds it"


def anonymous_names(text):
    """What a unit names at the first column of its anonymous namespaces, after the namespace around."""
    inside, around = False, ""
    for line in text.splitlines():
        if line == "namespace {":
            inside = True
        elif line.startswith("namespace "):
            around = line.split()[1]
        elif re.match(r"}\s*// namespace$", line):
            inside = False
        elif inside and line[:1].isalpha() and not line.startswith(("using", "TEST", "INSTANTIATE")):
            head = re.split(r"[={;]", line)[0]
            match = re.match(r"(?:struct|class|enum class|enum) (\w+)", line) or re.search(r"(?<!:)\b(\w+)\(", head) \
                or re.search(r"(\w+)(?:\[.*)?\s*$", head)
            if match:
                yield f"{around}::{match[1]}"


def batch_faults(root, files):
    """Names in anonymous namespaces stand once in a target: cmake/Unity.cmake compiles its units together, where a
    second constant is an error and a second function an overload that may take another unit's calls."""
    for name in files:
        if not name.endswith("CMakeLists.txt"):
            continue
        text = (root / name).read_text()
        for target, body in re.findall(r"tandem_(?:library|binary|test)\((\S+)([^)]*)", text):
            if re.search(rf"\b{re.escape(target)} PROPERTIES UNITY_BUILD OFF", text):
                continue
            seen = {}
            for source in re.findall(r"\S+\.cc\b", body):
                unit = root / Path(name).parent / source
                for word in set(anonymous_names(unit.read_text()) if unit.is_file() else ()):
                    if word in seen:
                        yield f"{unit.relative_to(root)}: {word} stands in {seen[word]} of {target}, too; rename one"
                    seen.setdefault(word, source)


def document_faults(root, name, text):
    """Paths in backticks that look like the tree's exist."""
    tops = {p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith(("build", "work"))}
    for path in re.findall(r"`([\w.-]+(?:/[\w.*{},-]+)+)/?`", text):
        if path.split("/")[0] in tops and not re.search(r"[*{]", path) and not (root / path).exists():
            yield f"{name}: names {path}, which does not exist"


def faults(root):
    files = tracked(root)
    for name in files:
        path = root / name
        if path.stat().st_size > LARGE_BYTES and not name.startswith("examples/"):
            yield f"{name}: {path.stat().st_size} bytes; at most {LARGE_BYTES} outside examples/"
        if name.endswith((".h", ".cc", ".py", ".cu", ".cuh")):
            text = path.read_text()
            yield from text_faults(name, text)
            if name.endswith((".h", ".cc")):
                yield from include_faults(name, text)
        elif name.endswith(".md"):
            yield from document_faults(root, name, path.read_text())
    yield from source_faults(root, files)
    yield from batch_faults(root, files)


PLANTED = {
    "coordinator/core/bad.cc": ('#include "spec/fields.h"\n', "must not include spec/fields.h"),
    "worker/agent/bad.h": ("#include <ATen/ATen.h>\n", "must not include ATen/ATen.h"),
    "worker/train/bad.h": ("#include <grpcpp/grpcpp.h>\n", "must not include grpcpp"),
    "base/bad.h": ('#include "worker/plan/plan.h"\n', "must not include worker/plan/plan.h"),
    "cli/string_utils.h": ("\n", "hides what the file is"),
    "spec/long.h": ("\n" * 501, "lines; at most 500"),
    "coordinator/loop.cc": ("auto t = std::chrono::steady_clock::now();\n", "base/clock.h"),
    "worker/rank/x.cc": ("try {} catch (...) {}\n", "only worker/rank/guard.cc"),
    "spec/orphan.cc": ("\n", "stands in no CMakeLists.txt"),
    "python/big.bin": ("x" * 600_000, "bytes; at most"),
    "README.md": ("`spec/nowhere.cc`", "does not exist"),
    "base/CMakeLists.txt": ("tandem_library(tandem_base SOURCES one.cc two.cc)\n", ""),
    "base/one.cc": ("namespace {\nint Size(int x) { return x; }\n}  // namespace\n", ""),
    "base/two.cc": ("namespace {\nint Size(long x) {\n}\n}  // namespace\n", "::Size stands in one.cc of tandem_base"),
    "tests/unit/a_test.cc": ("std::this_thread::sleep_for(x);\n", "await a condition"),
}


def self_test():
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        subprocess.run(["git", "init", "-q", folder], check=True)
        for name, (text, _) in PLANTED.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        found = list(faults(root))
    missed = [f"{n}: planted, not found: {want}" for n, (_, want) in PLANTED.items()
              if want and not any(f.startswith(n) and want in f for f in found)]
    return missed


def main():
    lines = self_test() if "--test" in sys.argv else list(faults(Path(__file__).resolve().parent.parent))
    print("\n".join(lines) or "tidy")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
