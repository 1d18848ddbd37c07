"""Writes text with an exported model, token by token, in constant memory; the base model beside it.

    python -m tandem.generate DIR --rank TANDEM_RANK (--prompt TEXT | --prompt -) [options]

DIR is a model that Tandem exported, or any base model that it reads. The text is tokenised with the
folder's own tokenizer (BOS first where the tokenizer says so), `tandem-rank --generate` writes ids,
and each character is printed as soon as its bytes are whole. Text goes to stdout; speed and memory
to stderr. --compare writes the base model's text first, then the converted model's, from the same
prompt: the base is --base, or the folder that DIR's manifest.json names if it is still there.
--json prints one object at the end instead: model, mode, prompt_ids, ids, text, reason, tokens,
tokens_per_second, state_bytes, prompt_state_bytes, peak_memory_bytes, peak_device_bytes (0 on the
CPU); with --compare "base" holds the same of the base. --chat makes the text the user's message in
the model's chat template, rendered as transformers' apply_chat_template renders it, today's date
included.

Exit codes: 0 done, 1 the model could not be run, 2 something is wrong with what was given (all of it
is said), 130 stopped by Ctrl-C.
"""

import argparse
import contextlib
import datetime
import json
import os
import subprocess
import sys
import tempfile

from tandem.model_folder import MODE_WORDS, find_base, served_words, stop_ids
from tandem.model_tokenizer import ModelTokenizer
from tandem.text_stream import TextStream
from tandem.violations import BadDocument, DataRefused, Violations

DONE, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130
# A token is many small parallel sections: threads that spin between them starve each other where
# other programs run too.
PASSIVE = {"OMP_WAIT_POLICY": "passive"}


class GenerationFailed(Exception):
    """The rank could not write; the message says why."""


def refusal(field, message):
    return DataRefused([(field, message)])


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


def chat_prompt(folder, tokenizer, text):
    """The text as the user's message, up to where the assistant answers."""
    template = tokenizer.chat_template
    if template is None:
        raise refusal(
            "chat",
            f"{folder} has no chat template (chat_template.jinja, or chat_template in its "
            "tokenizer_config.json); leave out --chat and give the text as the model reads it",
        )
    try:
        return template.render([{"role": "user", "content": text}], True, strftime_now=today)
    except BadDocument as problem:
        raise refusal("chat", f"{folder}: {problem}") from problem


def today(form):
    return datetime.datetime.now().strftime(form)


def encode_prompt(folder, tokenizer, text, chat):
    """Ids of the prompt. A chat template writes BOS itself, where the model wants it."""
    if chat:
        ids = tokenizer.encode(chat_prompt(folder, tokenizer, text))
    else:
        ids = ([] if tokenizer.bos is None else [tokenizer.bos]) + tokenizer.encode(text)
    if not ids:
        raise refusal("prompt", "it has no tokens, and the model has no BOS; give some text")
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
        self.prompt_ids = encode_prompt(folder, self.tokenizer, prompt, options.chat)
        if len(self.prompt_ids) > self.tokenizer.max_length:
            print(
                f"note: the prompt has {len(self.prompt_ids)} tokens; {folder} is made for "
                f"{self.tokenizer.max_length}",
                file=sys.stderr,
            )

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
            "device": options.device,
            "dtype": options.dtype,
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
    device = result["peak_device_bytes"]
    on_device = f", {bytes_text(device)} on the GPU" if device else ""
    return (
        f"{len(result['prompt_ids'])} prompt tokens in {result['prompt_seconds']:.2f} s, "
        f"{result['tokens']} written at {result['tokens_per_second']:.1f} tokens/s; {memory}; "
        f"peak memory {bytes_text(result['peak_memory_bytes'])}{on_device}"
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


def read_prompt(given):
    where, text = "--prompt", os.fsencode(given)
    if given == "-":
        where, text = "the text on stdin", sys.stdin.buffer.read()
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise refusal("prompt", f"{where} is not UTF-8 ({error}); convert it to UTF-8") from error


def generate(options):
    if options.dtype == "bfloat16" and options.device == "cpu":
        raise refusal("dtype", "--dtype bfloat16 needs --device cuda: the CPU computes in float32")
    prompt = read_prompt(options.prompt)
    own = Writer(options.model, prompt, options)
    base = None
    if options.compare:
        base = Writer(find_base(options.model, options.base), prompt, options)
    result_of_base = None
    if base:
        # A converted folder given as --base is read as what it came from: its merged weights.
        words = f"base model: {MODE_WORDS['softmax']}"
        result_of_base = run_one(base, "softmax", words, options)
    mode = options.mode
    heading = None
    if base:
        words = served_words(options.model) if mode == "served" else MODE_WORDS[mode]
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
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--chat", action="store_true")
    parser.add_argument("--mode", choices=["served", *MODE_WORDS], default="served")
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
