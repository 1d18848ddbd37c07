"""Writes text with an exported model, token by token, in constant memory; the base model beside it.

    python -m tandem.generate DIR --rank TANDEM_RANK (--prompt TEXT | --prompt -) [options]

DIR is a model that Tandem exported, or any base model that it reads. The text is tokenised with the
folder's own tokenizer (BOS first where the tokenizer says so), `tandem-rank --generate` writes ids,
and each character is printed as soon as its bytes are whole. Text goes to stdout; speed and memory
to stderr. --compare writes the base model's text first, then the converted model's, from the same
prompt: the base is --base, or the folder that DIR's manifest.json names if it is still there.
--json prints one object at the end instead: model, mode, prompt_ids, ids, text, reason, tokens,
tokens_per_second, state_bytes, prompt_state_bytes, peak_memory_bytes; with --compare "base" holds
the same of the base.

Exit codes: 0 done, 1 the model could not be run, 2 something is wrong with what was given (all of it
is said), 130 stopped by Ctrl-C.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile

from tandem.model_tokenizer import ModelTokenizer
from tandem.violations import DataRefused, Violations

DONE, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130
# A token is many small parallel sections: threads that spin between them starve each other where
# other programs run too.
PASSIVE = {"OMP_WAIT_POLICY": "passive"}
CONTEXT = 8  # ids of the prompt that the first written token is decoded behind
WORDS = {
    "softmax": "softmax, key/value cache",
    "hybrid": "linear attention and a softmax window",
    "window_only": "the softmax window alone",
    "linear_only": "linear attention alone",
}


class GenerationFailed(Exception):
    """The rank could not write; the message says why."""


class TextStream:
    """Ids to text, piece by piece: a piece is given when its bytes are whole characters."""

    def __init__(self, decode, before):
        self.decode, self.ids = decode, list(before[-CONTEXT:])
        self.begin, self.given = 0, len(self.ids)

    def add(self, token):
        self.ids.append(token)
        return self._piece(final=False)

    def rest(self):
        """What is left at the end, broken characters included."""
        return self._piece(final=True)

    def _piece(self, final):
        known = self.decode(self.ids[self.begin : self.given])
        text = self.decode(self.ids[self.begin :])
        if len(text) <= len(known) or (text.endswith("\ufffd") and not final):
            return ""
        self.begin, self.given = self.given, len(self.ids)
        return text[len(known) :]


def read_json(path):
    """The file's object; {} where it is not there or not JSON."""
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def open_tokenizer(folder):
    """The folder's tokenizer; DataRefused says what is wrong with the folder."""
    violations = Violations()
    if not os.path.isdir(folder):
        violations.add("model", f"{folder} is no folder; give the folder of an exported model")
    elif not os.path.isfile(os.path.join(folder, "config.json")):
        violations.add(
            "model", f"{folder} has no config.json; it is neither an exported model nor a base"
        )
    violations.raise_if_any()
    try:
        return ModelTokenizer(folder, violations)
    except ImportError as error:
        raise GenerationFailed(
            f"{sys.executable} lacks a package ({error}); run deploy/setup.sh, or let TANDEM_PYTHON "
            "name an interpreter with tokenizers"
        ) from error


def stop_ids(folder, tokenizer):
    """Ids that end a text: generation_config.json's, else config.json's, else the tokenizer's."""
    for name in ("generation_config.json", "config.json"):
        value = read_json(os.path.join(folder, name)).get("eos_token_id")
        values = value if isinstance(value, list) else [value]
        if found := [v for v in values if type(v) is int and v >= 0]:
            return found
    return [] if tokenizer.eos is None else [tokenizer.eos]


def is_converted(folder):
    return "hybrid" in read_json(os.path.join(folder, "config.json"))


def find_base(folder, given):
    """The base model's folder; DataRefused when nothing names one that is there."""
    violations = Violations()
    if given:
        return given
    if not is_converted(folder):
        violations.add("compare", f"{folder} is a base model itself; there is none beside it")
        violations.raise_if_any()
    spec = read_json(os.path.join(folder, "manifest.json")).get("spec")
    model = spec.get("model") if isinstance(spec, dict) else None
    path = model.get("path") if isinstance(model, dict) else None
    if not isinstance(path, str):
        violations.add("compare", f"{folder}/manifest.json names no base model; pass --base DIR")
    elif not os.path.isdir(path):
        violations.add("compare", f"the base model is no longer at {path}; pass --base DIR")
    violations.raise_if_any()
    return path


def encode_prompt(tokenizer, text):
    before = [] if tokenizer.bos is None else [tokenizer.bos]
    ids = before + tokenizer.encode(text)
    if not ids:
        violations = Violations()
        violations.add("prompt", "it has no tokens, and the model has no BOS; give some text")
        violations.raise_if_any()
    return ids


def write(rank, request, on_token):
    """Runs the rank; returns {"prompt": ..., "done": ...}. Raises GenerationFailed."""
    told = {}
    with tempfile.TemporaryDirectory(prefix="tandem-generate-") as folder:
        path, errors = os.path.join(folder, "request.json"), os.path.join(folder, "errors")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(request, file)
        with open(errors, "wb") as sink:
            process = subprocess.Popen(
                [rank, "--generate", path],
                stdout=subprocess.PIPE,
                stderr=sink,
                text=True,
                env={**PASSIVE, **os.environ},
            )
        try:
            for line in process.stdout:
                event = json.loads(line)
                if "token" in event:
                    on_token(event["token"])
                else:
                    told[event["event"]] = event
            process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if "failed" in told:
            raise GenerationFailed(told["failed"]["message"])
        if "done" not in told:
            with open(errors, encoding="utf-8", errors="replace") as file:
                said = file.read().strip()[-2000:]
            raise GenerationFailed(f"tandem-rank ended with {process.returncode}\n{said}".strip())
    return told


class Writer:
    """One model and the prompt in its own tokens."""

    def __init__(self, folder, prompt, options):
        self.folder, self.options = folder, options
        self.tokenizer = open_tokenizer(folder)
        self.prompt_ids = encode_prompt(self.tokenizer, prompt)

    def decode(self, ids):
        return self.tokenizer.tokenizer.decode(ids, skip_special_tokens=True)

    def request(self, mode):
        options = self.options
        return {
            "version": 1,
            "model": os.path.abspath(self.folder),
            "mode": mode,
            "prompt": self.prompt_ids,
            "max_tokens": options.max_tokens,
            "temperature": options.temperature,
            "top_p": options.top_p,
            "seed": options.seed,
            "stop": stop_ids(self.folder, self.tokenizer),
            "threads": options.threads,
        }

    def run(self, mode, show):
        """Writes; `show` gets each piece of text. Returns what --json prints of one model."""
        stream, ids, pieces = TextStream(self.decode, self.prompt_ids), [], []

        def give(piece):
            if piece:
                pieces.append(piece)
                show(piece)

        def on_token(token):
            ids.append(token)
            give(stream.add(token))

        told = write(self.options.rank, self.request(mode), on_token)
        give(stream.rest())
        done, prompt = told["done"], told["prompt"]
        return {
            "model": self.folder,
            "mode": prompt["mode"],
            "prompt_ids": self.prompt_ids,
            "prompt_seconds": prompt["seconds"],
            "prompt_state_bytes": prompt["state_bytes"],
            "ids": ids,
            "text": "".join(pieces),
            **{key: value for key, value in done.items() if key != "event"},
        }


def bytes_text(count):
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000


def closing_words(result):
    state, before = result["state_bytes"], result["prompt_state_bytes"]
    memory = f"{bytes_text(state)} remembered of the text"
    if state != before:
        memory += f" ({bytes_text(before)} after the prompt)"
    return (
        f"{len(result['prompt_ids'])} prompt tokens in {result['prompt_seconds']:.2f} s, "
        f"{result['tokens']} written at {result['tokens_per_second']:.1f} tokens/s; {memory}; "
        f"peak memory {bytes_text(result['peak_memory_bytes'])}"
    )


def print_piece(piece):
    sys.stdout.write(piece)
    sys.stdout.flush()


def run_one(writer, mode, heading, options):
    if options.json:
        return writer.run(mode, lambda piece: None)
    if heading:
        print_piece(f"--- {heading}\n")
    result = writer.run(mode, print_piece)
    print_piece("" if result["text"].endswith("\n") else "\n")
    print(closing_words(result), file=sys.stderr, flush=True)
    return result


def served_words(folder):
    hybrid = read_json(os.path.join(folder, "config.json")).get("hybrid")
    return WORDS.get(hybrid.get("mode"), "converted") if isinstance(hybrid, dict) else "base"


def read_prompt(given):
    if given != "-":
        return given
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        violations = Violations()
        violations.add("prompt", f"the text on stdin is not UTF-8 ({error})")
        violations.raise_if_any()


def generate(options):
    prompt = read_prompt(options.prompt)
    own = Writer(options.model, prompt, options)
    base = None
    if options.compare:
        base = Writer(find_base(options.model, options.base), prompt, options)
    result_of_base = None
    if base:
        # A converted folder given as --base is read as what it came from: its merged weights.
        words = f"base model: {WORDS['softmax']}"
        result_of_base = run_one(base, "softmax", words, options)
    mode = options.mode
    heading = None
    if base:
        words = served_words(options.model) if mode == "served" else WORDS[mode]
        heading = f"converted model: {words}"
    result = run_one(own, mode, heading, options)
    if options.json:
        if result_of_base:
            result["base"] = result_of_base
        print(json.dumps(result, ensure_ascii=False))


def parse(arguments):
    parser = argparse.ArgumentParser(prog="tandem generate", description=__doc__.split("\n")[0])
    parser.add_argument("model", metavar="DIR")
    parser.add_argument("--rank", required=True)
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--mode", choices=["served", *WORDS], default="served")
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--base")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse(arguments)
    with contextlib.suppress(AttributeError):  # a stream without an encoding of its own
        sys.stdout.reconfigure(encoding="utf-8", errors="replace")
    try:
        generate(options)
    except DataRefused as refused:
        for _, message in refused.violations:
            print(f"tandem: {message}", file=sys.stderr)
        return REFUSED
    except GenerationFailed as failure:
        print(f"tandem: {failure}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return DONE


if __name__ == "__main__":
    sys.exit(main())
