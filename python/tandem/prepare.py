"""The job's first stage: text to token shards, cached by content.

    python -m tandem.prepare --request prepare.json

Request: {"version": 1, "tokenizer": model folder, "cache": folder, "train": [paths],
"validation": [paths], "validation_fraction": 0.02, "max_documents": 0, "sequence_length": 512,
"seed": 0}, and where they are wanted

    "weights": [real per item of train]   "text_key": "text"   "train_on_prompt": false
    "passkey": {"prompts": 32, "distances": [16, 128, 384], "length": 512}
    "needle", "recall", "key_value": settings of long_range.py
    "suites": [paths of suite files]   "suite_items": 0   "bos": "model" or "none"    (suites.py)

Result: a folder <cache>/<key> with {train,validation}.{bin,idx}, their masks (token_shards.py),
passkey.json, long_range.json, suites.{json,bin,idx} and manifest.json (with the digests of all
others). With weights each item of `train` is a shard of its own, train-0, train-1, ..., named with
its weight under "train_shards"; max_documents then counts in each. The key is the SHA-256 of what
the content depends on, so the same request again costs only the digests of its files. The folder is
written aside, made durable and renamed: it is whole or it is not there.

Says JSON lines on stdout: {"event": "progress", "documents", "tokens"}, then {"event": "result",
"tokens": folder, "documents", "train_tokens", "validation_tokens", "cached"}, or one {"event":
"error", "field", "message"} with all that is wrong, a line each. Exit codes: 0 done, 2 the user's
data or model folder cannot be used, 1 anything else.
"""

import argparse
import hashlib
import json
import os
import sys

from tandem.documents import read_documents, source_of
from tandem.long_range import make_long_range
from tandem.model_tokenizer import ModelTokenizer
from tandem.passkey import make_prompts
from tandem.record_forms import ALPACA_TEMPLATE, RecordForms
from tandem.suites import write_suites
from tandem.token_cache import FolderAside, cache_key, read_manifest
from tandem.token_shards import read_shard, sha256_of, write_durably
from tandem.tokenising import Tokenising, say
from tandem.violations import BadFile, DataRefused, Violations

CODE_VERSION = 2  # raise it when the same input would give other shards
FILLER_TOKENS = 1 << 22  # of held-out text, in which passkeys and facts are hidden
EVALUATION_KEYS = ("passkey", "needle", "recall", "key_value", "suite_items", "bos")


# ---------------------------------------------------------------- sources


def digest_sources(request, violations):
    """{'train': [{name, bytes, sha256}], 'validation': [...]} of the raw files."""
    sources = {}
    for split in ("train", "validation"):
        sources[split] = []
        for index, path in enumerate(request[split]):
            digest_source(f"data.{split}[{index}]", path, sources[split], violations)
    if not request["train"]:
        violations.add("data.train", "no file is named; name at least one")
    return sources


def digest_source(field, path, entries, violations):
    try:
        source = source_of(path)
        files = source.files()
        size = sum(os.path.getsize(file) for file in files)
        if size == 0:
            violations.add(field, f"{path} is empty; name a file with text")
            return
        digests = [sha256_of(file) for file in files]
        whole = digests[0] if len(digests) == 1 else cache_key(digests)
        entries.append({"name": os.path.basename(path), "bytes": size, "sha256": whole})
    except BadFile as problem:
        violations.add(field, str(problem))
    except OSError as error:
        violations.add(field, f"{path} cannot be read: {error.strerror or error}")


def check_weights(request, violations):
    weights, count = request.get("weights") or [], len(request["train"])
    if not weights:
        return
    if len(weights) != count:
        violations.add(
            "data.weights",
            f"{len(weights)} weights for {count} items of data.train; give one for each, or none",
        )
    for index, weight in enumerate(weights):
        if not 0 < weight < float("inf"):
            violations.add(f"data.weights[{index}]", f"is {weight}; must be above 0")


class Reading:
    """The documents of a request's splits, empty ones left out, and what is wrong with them."""

    def __init__(self, request, tokenizer, violations):
        self.request, self.violations = request, violations
        self.weighted = bool(request.get("weights"))
        self.forms = RecordForms(
            request.get("text_key") or "text",
            bool(request.get("train_on_prompt")),
            tokenizer,
        )

    def shard_names(self):
        """Shard of each item of `train`."""
        count = len(self.request["train"])
        return [f"train-{i}" for i in range(count)] if self.weighted else ["train"] * count

    def documents(self, split):
        """(index of the item, Document) in file order."""
        left = limit = self.request["max_documents"] if split == "train" else 0
        for index, path in enumerate(self.request[split]):
            if self.weighted:
                left = limit
            for document in self.of_item(f"data.{split}[{index}]", path):
                yield index, document
                left -= 1
                if left == 0:
                    break
            if limit and left == 0 and not self.weighted:
                return

    def of_item(self, field, path):
        in_file = 0
        try:
            for kind, value in read_documents(path, self.forms):
                if kind == "bad":
                    self.violations.add(field, value)
                    if self.violations.full(field):
                        break
                elif not value.empty:
                    in_file += 1
                    yield value
            if in_file == 0 and not self.violations.names(field):
                self.violations.add(field, f"{path} holds no text; name a file with text")
        except BadFile as problem:
            self.violations.add(field, str(problem))


def held_out_rank(document):
    """In [0, 1), from the content alone: the same document is held out in every job."""
    return int.from_bytes(hashlib.sha256(document.content).digest()[:8], "big") / 2**64


def survey(request, reading):
    """Reads everything once before tokenising: raises all that is wrong.

    Returns the threshold of the hold-out, None if validation files are given.
    """
    violations, lowest, documents = reading.violations, 2.0, 0
    for _, document in reading.documents("train"):
        lowest = min(lowest, held_out_rank(document))
        documents += 1
    for _ in reading.documents("validation"):
        pass
    violations.raise_if_any()
    if request["validation"]:
        return None
    if documents < 2:
        violations.add(
            "data.validation",
            "data.train is a single document and a part of it cannot be held out; name a file in "
            "data.validation, or give the text as several documents (.jsonl, or several .txt)",
        )
        violations.raise_if_any()
    # At least one document, also where the fraction of a few would be none.
    return max(request["validation_fraction"], lowest + 2**-40)


# ---------------------------------------------------------------- the folder's files


def write_shards(request, tokenizer, folder, violations):
    reading = Reading(request, tokenizer, violations)
    threshold = survey(request, reading)
    names = reading.shard_names()
    work = Tokenising(tokenizer, folder, [*dict.fromkeys(names), "validation"])
    for index, document in reading.documents("train"):
        held_out = threshold is not None and held_out_rank(document) < threshold
        work.add("validation" if held_out else names[index], document)
    for _, document in reading.documents("validation"):
        work.add("validation", document)
    violations.raise_if_any()
    work.close()
    return work.shards


def train_shards(request, shards):
    """The manifest's list: what training draws from, and in which proportion."""
    weights = request.get("weights") or [1.0]
    names = [name for name in shards if name != "validation"]
    return [
        {"name": name, "weight": weight, **counts(shards[name])}
        for name, weight in zip(names, weights)
    ]


def counts(shard):
    return {
        "documents": len(shard.lengths),
        "tokens": shard.tokens,
        "masked": shard.mask is not None,
    }


def check_lengths(request, train, held_out):
    """A chunk is read only while more than sequence_length tokens are left.

    train: as train_shards; held_out: tokens.
    """
    violations, needed = Violations(), request["sequence_length"] + 1
    weighted = bool(request.get("weights"))
    for index, shard in enumerate(train):
        if shard["tokens"] >= needed:
            continue
        violations.add(
            f"data.train[{index}]" if weighted else "data.train",
            f"{shard['tokens']} tokens in all; a sequence of data.sequence_length needs {needed}: "
            "give more text or a shorter data.sequence_length",
        )
    if held_out < needed:
        violations.add(
            "data.validation" if request["validation"] else "data.validation_fraction",
            f"{held_out} tokens are held out; a sequence of data.sequence_length needs "
            f"{needed}: give more text, a larger data.validation_fraction or a shorter "
            "data.sequence_length",
        )
    violations.raise_if_any()


def write_prompts(request, tokenizer, folder, violations):
    """passkey.json and long_range.json, where they are asked for."""
    before, after = tokenizer.edges()
    filler = []
    for ids in read_shard(os.path.join(folder, "validation"), FILLER_TOKENS):
        filler += ids[len(before) : len(ids) - len(after)]
    made = {}
    settings, seed = request.get("passkey") or {}, request["seed"]
    if settings.get("prompts"):
        made["passkey.json"] = make_prompts(tokenizer, filler, settings, seed, violations)
    made["long_range.json"] = make_long_range(tokenizer, filler, request, violations)
    violations.raise_if_any()
    for name, prompts in made.items():
        if prompts["prompts"]:
            write_durably(os.path.join(folder, name), json.dumps(prompts).encode())


def write_manifest(folder, shards, tokenizer, sources, request, key):
    files = {
        name: {
            "bytes": os.path.getsize(os.path.join(folder, name)),
            "sha256": sha256_of(os.path.join(folder, name)),
        }
        for name in sorted(os.listdir(folder))
    }
    held_out = shards["validation"]
    train = train_shards(request, shards)
    manifest = {
        "version": 1,
        "key": key,
        "tokenizer_sha256": tokenizer.sha256,
        "tokenizer_library": tokenizer.library,
        "vocab_size": tokenizer.vocab_size,
        "bos": tokenizer.bos,
        "eos": tokenizer.eos,
        "dtype": held_out.dtype,
        "max_id": max(shard.max_id for shard in shards.values()),
        "sources": sources,
        "instruction_template": ALPACA_TEMPLATE,
        "validation": "files" if request["validation"] else "held-out documents",
        "train_shards": train,
        "validation_masked": held_out.mask is not None,
        "documents": {
            "train": sum(shard["documents"] for shard in train),
            "validation": len(held_out.lengths),
        },
        "tokens": {
            "train": sum(shard["tokens"] for shard in train),
            "validation": held_out.tokens,
        },
        "files": files,
    }
    write_durably(os.path.join(folder, "manifest.json"), json.dumps(manifest, indent=1).encode())
    return manifest


# ---------------------------------------------------------------- all of it


def content_of(request, tokenizer, sources, suites):
    """What the folder's content depends on."""
    template = tokenizer.chat_template
    wanted = {name: request.get(name) for name in EVALUATION_KEYS if request.get(name)}
    return {
        "code": CODE_VERSION,
        "tokenizer": [
            tokenizer.sha256,
            tokenizer.library,
            tokenizer.bos,
            tokenizer.eos,
            tokenizer.vocab_size,
            tokenizer.max_length,
            template and [template.source, template.variables],
        ],
        "sources": {
            split: [
                [entry["sha256"], *source_of(path)[1:]]
                for path, entry in zip(request[split], entries)
            ]
            for split, entries in sources.items()
        },
        "options": [
            request["validation_fraction"],
            request["max_documents"],
            request.get("weights") or [],
            request.get("text_key") or "text",
            bool(request.get("train_on_prompt")),
        ],
        "evaluation": [wanted, request["seed"], request["sequence_length"]] if wanted else None,
        "suites": suites,
    }


def prepare(request):
    """Returns the result event's fields. Raises DataRefused."""
    violations = Violations()
    tokenizer = None
    try:
        tokenizer = ModelTokenizer(request["tokenizer"], violations)
    except DataRefused:
        pass  # kept in `violations`: the files are looked at as well
    sources = digest_sources(request, violations)
    suites = []
    for index, path in enumerate(request.get("suites") or []):
        digest_source(f"evaluate.suites[{index}]", path, suites, violations)
    check_weights(request, violations)
    violations.raise_if_any()
    digests = [entry["sha256"] for entry in suites]
    key = cache_key(content_of(request, tokenizer, sources, digests))
    final = os.path.join(request["cache"], key)
    manifest = read_manifest(final)
    cached = manifest is not None
    if cached:
        check_lengths(request, manifest["train_shards"], manifest["tokens"]["validation"])
    else:
        manifest = fill_cache(request, tokenizer, {**sources, "suites": suites}, key, violations)
    return {
        "tokens": final,
        "documents": sum(manifest["documents"].values()),
        "train_tokens": manifest["tokens"]["train"],
        "validation_tokens": manifest["tokens"]["validation"],
        "cached": cached,
    }


def fill_cache(request, tokenizer, sources, key, violations):
    aside = FolderAside(request["cache"], key)
    try:
        shards = write_shards(request, tokenizer, aside.path, violations)
        check_lengths(request, train_shards(request, shards), shards["validation"].tokens)
        write_prompts(request, tokenizer, aside.path, violations)
        write_suites(request, tokenizer, aside.path, violations)
        manifest = write_manifest(aside.path, shards, tokenizer, sources, request, key)
        aside.commit(os.path.join(request["cache"], key))
        return manifest
    finally:
        aside.close()


# ---------------------------------------------------------------- command


REQUEST_TYPES = {
    "version": int, "tokenizer": str, "cache": str, "train": list, "validation": list,
    "validation_fraction": (int, float), "max_documents": int, "sequence_length": int, "seed": int,
}  # fmt: skip


def read_request(path):
    """The agent wrote it: anything odd is a ValueError, not the user's fault."""
    with open(path, encoding="utf-8") as file:
        request = json.load(file)
    wrong = [
        f"{name} is {request.get(name)!r}"
        for name, kind in REQUEST_TYPES.items()
        if not isinstance(request.get(name), kind)
    ]
    if wrong or request["version"] != 1:
        raise ValueError(
            f"{path}: version 1 with {', '.join(REQUEST_TYPES)} is needed; " + "; ".join(wrong)
        )
    return request


def say_refused(violations):
    """One event: the first violation's field, and the others as further lines of the message."""
    (field, message), *others = violations
    message = "\n".join([message, *(f"{other}: {words}" for other, words in others)])
    say("error", field=field, message=message)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m tandem.prepare", description="Text to token shards."
    )
    parser.add_argument("--request", required=True, help="prepare.json")
    try:
        say("result", **prepare(read_request(parser.parse_args(arguments).request)))
    except DataRefused as refused:
        say_refused(refused.violations)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
