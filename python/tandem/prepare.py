"""The job's first stage: text to token shards, cached by content.

    python -m tandem.prepare --request prepare.json

Request: {"version": 1, "tokenizer": model folder, "cache": folder, "train": [paths],
"validation": [paths], "validation_fraction": 0.02, "max_documents": 0, "sequence_length": 512,
"seed": 0, "passkey": {"prompts": 32, "distances": [16, 128, 384], "length": 512}}. Without passkey,
or with prompts 0, no prompts are made.

Result: a folder <cache>/<key> with {train,validation}.{bin,idx}, passkey.json and manifest.json
(with the digests of all others). The key is the SHA-256 of what the content depends on, so the same
request again costs only the digests of its files. The folder is written aside, made durable and
renamed: it is whole or it is not there.

Says JSON lines on stdout: {"event": "progress", "documents", "tokens"}, then {"event": "result",
"tokens": folder, "documents", "train_tokens", "validation_tokens", "cached"}, or one {"event":
"error", "field", "message"} with all that is wrong, a line each. Exit codes: 0 done, 2 the user's
data or model folder cannot be used, 1 anything else.
"""

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import sys
import time

from tandem.documents import BadFile, read_documents, split_name
from tandem.model_tokenizer import ModelTokenizer
from tandem.passkey import make_prompts
from tandem.token_shards import (
    ShardWriter,
    dtype_for,
    read_shard,
    sha256_of,
    sync_folder,
    write_durably,
)
from tandem.violations import DataRefused, Violations

CODE_VERSION = 1  # raise it when the same input would give other shards
BATCH_CHARACTERS = 1 << 20
PROGRESS_SECONDS = 1.0


def say(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


# ---------------------------------------------------------------- sources


def digest_sources(request, violations):
    """{'train': [{name, bytes, sha256}], 'validation': [...]} of the raw files."""
    sources = {}
    for split in ("train", "validation"):
        sources[split] = []
        for index, path in enumerate(request[split]):
            field = f"data.{split}[{index}]"
            try:
                split_name(path)
                size = os.path.getsize(path)
                if size == 0:
                    violations.add(field, f"{path} is empty; name a file with text")
                    continue
                entry = {"name": os.path.basename(path), "bytes": size, "sha256": sha256_of(path)}
                sources[split].append(entry)
            except BadFile as problem:
                violations.add(field, str(problem))
            except OSError as error:
                violations.add(field, f"{path} cannot be read: {error.strerror or error}")
    if not request["train"]:
        violations.add("data.train", "no file is named; name at least one")
    return sources


def documents_of(request, split, violations):
    """Texts of a split in file order, empty ones left out, at most max_documents of `train`."""
    limit = request["max_documents"] if split == "train" else 0
    taken = 0
    for index, path in enumerate(request[split]):
        field, in_file = f"data.{split}[{index}]", 0
        try:
            for kind, value in read_documents(path):
                if kind == "bad":
                    violations.add(field, value)
                    if violations.full(field):
                        break
                elif value:
                    in_file += 1
                    taken += 1
                    yield value
                    if limit and taken == limit:
                        return
            if in_file == 0 and not any(known == field for known, _ in violations.found):
                violations.add(field, f"{path} holds no text; name a file with text")
        except BadFile as problem:
            violations.add(field, str(problem))


def held_out_rank(text):
    """In [0, 1), from the text alone: the same document is held out in every job."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def survey(request, violations):
    """Reads everything once before tokenising: raises all that is wrong.

    Returns the threshold of the hold-out, None if validation files are given.
    """
    lowest, documents = 2.0, 0
    for text in documents_of(request, "train", violations):
        lowest = min(lowest, held_out_rank(text))
        documents += 1
    if request["validation"]:
        for _ in documents_of(request, "validation", violations):
            pass
        violations.raise_if_any()
        return None
    violations.raise_if_any()
    if documents < 2:
        violations.add(
            "data.validation",
            "data.train is a single document and a part of it cannot be held out; name a file in "
            "data.validation, or give the text as several documents (.jsonl, or several .txt)",
        )
        violations.raise_if_any()
    # At least one document, also where the fraction of a few would be none.
    return max(request["validation_fraction"], lowest + 2**-40)


# ---------------------------------------------------------------- tokenising


class Tokenising:
    """Batches texts through the tokenizer into the two shards, and says how far it is."""

    def __init__(self, tokenizer, folder):
        self.tokenizer, self.said = tokenizer, time.monotonic()
        dtype = dtype_for(tokenizer.vocab_size)
        self.shards = {
            split: ShardWriter(os.path.join(folder, split), dtype)
            for split in ("train", "validation")
        }
        self.waiting, self.characters = [], 0

    def add(self, split, text):
        self.waiting.append((split, text))
        self.characters += len(text)
        if self.characters >= BATCH_CHARACTERS:
            self.flush()

    def flush(self):
        batch, self.waiting, self.characters = self.waiting, [], 0
        for (split, _), ids in zip(batch, self.tokenizer.encode_batch([text for _, text in batch])):
            wrapped = self.tokenizer.wrap(ids)
            self.check(wrapped)
            if wrapped:
                self.shards[split].append(wrapped)
        if time.monotonic() - self.said >= PROGRESS_SECONDS:
            self.said = time.monotonic()
            say("progress", documents=self.documents(), tokens=self.tokens())

    def check(self, ids):
        if ids and max(ids) >= self.tokenizer.vocab_size:
            raise DataRefused(
                [
                    (
                        "model.path",
                        f"the tokenizer gives the id {max(ids)}, but config.json's vocab_size is "
                        f"{self.tokenizer.vocab_size}; the tokenizer belongs to another model",
                    )
                ]
            )

    def documents(self):
        return sum(len(shard.lengths) for shard in self.shards.values())

    def tokens(self):
        return sum(shard.tokens for shard in self.shards.values())

    def close(self):
        self.flush()
        for shard in self.shards.values():
            shard.close()


def write_shards(request, tokenizer, folder, violations):
    threshold = survey(request, violations)
    work = Tokenising(tokenizer, folder)
    for text in documents_of(request, "train", violations):
        held_out = threshold is not None and held_out_rank(text) < threshold
        work.add("validation" if held_out else "train", text)
    for text in documents_of(request, "validation", violations):
        work.add("validation", text)
    violations.raise_if_any()
    work.close()
    say("progress", documents=work.documents(), tokens=work.tokens())
    return work.shards


def check_lengths(request, train_tokens, validation_tokens):
    """A chunk is read only while more than sequence_length tokens are left."""
    violations, needed = Violations(), request["sequence_length"] + 1
    if train_tokens < needed:
        violations.add(
            "data.train",
            f"{train_tokens} tokens in all; a sequence of data.sequence_length needs {needed}: "
            "give more text or a shorter data.sequence_length",
        )
    if validation_tokens < needed:
        held = "data.validation" if request["validation"] else "data.validation_fraction"
        violations.add(
            held,
            f"{validation_tokens} tokens are held out; a sequence of data.sequence_length needs "
            f"{needed}: give more text, a larger data.validation_fraction or a shorter "
            "data.sequence_length",
        )
    violations.raise_if_any()


def write_passkey(request, tokenizer, folder, violations):
    settings = request.get("passkey") or {}
    if not settings.get("prompts"):
        return
    edges = (tokenizer.bos is not None, tokenizer.eos is not None)
    filler = []
    for ids in read_shard(os.path.join(folder, "validation")):
        filler += ids[edges[0] : len(ids) - edges[1]]
    prompts = make_prompts(tokenizer, filler, settings, request["seed"], violations)
    violations.raise_if_any()
    write_durably(os.path.join(folder, "passkey.json"), json.dumps(prompts).encode())


# ---------------------------------------------------------------- cache


def cache_key(content):
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_manifest(folder):
    """The manifest if the folder is whole (sizes; training checks the digests), else None."""
    try:
        with open(os.path.join(folder, "manifest.json"), encoding="utf-8") as file:
            manifest = json.load(file)
        sizes = {name: os.path.getsize(os.path.join(folder, name)) for name in manifest["files"]}
        whole = all(sizes[name] == entry["bytes"] for name, entry in manifest["files"].items())
        return manifest if whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


class FolderAside:
    """A folder beside the final one, locked while its writer lives: a kill leaves it unlocked."""

    def __init__(self, cache, key):
        os.makedirs(cache, exist_ok=True)
        self.remove_abandoned(cache)
        self.path = os.path.join(cache, f".{key[:16]}.{os.getpid()}.part")
        os.mkdir(self.path)
        self.lock = os.open(self.path, os.O_RDONLY)
        fcntl.flock(self.lock, fcntl.LOCK_EX)

    @staticmethod
    def remove_abandoned(cache):
        for name in os.listdir(cache):
            if not (name.startswith(".") and name.endswith(".part")):
                continue
            path = os.path.join(cache, name)
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except OSError:
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            except BlockingIOError:
                pass
            finally:
                os.close(descriptor)

    def commit(self, final):
        """Renames to `final`. If another run was faster, its folder stays: same content."""
        sync_folder(self.path)
        if read_manifest(final) is None:
            shutil.rmtree(final, ignore_errors=True)
        try:
            os.rename(self.path, final)
        except OSError:
            if read_manifest(final) is None:
                raise
        sync_folder(os.path.dirname(final))

    def close(self):
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.lock)


def write_manifest(folder, shards, tokenizer, sources, request, key):
    files = {
        name: {
            "bytes": os.path.getsize(os.path.join(folder, name)),
            "sha256": sha256_of(os.path.join(folder, name)),
        }
        for name in sorted(os.listdir(folder))
    }
    manifest = {
        "version": 1,
        "key": key,
        "tokenizer_sha256": tokenizer.sha256,
        "tokenizer_library": tokenizer.library,
        "vocab_size": tokenizer.vocab_size,
        "bos": tokenizer.bos,
        "eos": tokenizer.eos,
        "dtype": shards["train"].dtype,
        "max_id": max(shard.max_id for shard in shards.values()),
        "sources": sources,
        "validation": "files" if request["validation"] else "held-out documents",
        "documents": {split: len(shard.lengths) for split, shard in shards.items()},
        "tokens": {split: shard.tokens for split, shard in shards.items()},
        "files": files,
    }
    write_durably(os.path.join(folder, "manifest.json"), json.dumps(manifest, indent=1).encode())
    return manifest


def prepare(request):
    """Returns the result event's fields. Raises DataRefused."""
    violations = Violations()
    tokenizer = None
    try:
        tokenizer = ModelTokenizer(request["tokenizer"], violations)
    except DataRefused:
        pass  # kept in `violations`: the files are looked at as well
    sources = digest_sources(request, violations)
    violations.raise_if_any()
    content = {
        "code": CODE_VERSION,
        "tokenizer": [
            tokenizer.sha256,
            tokenizer.library,
            tokenizer.bos,
            tokenizer.eos,
            tokenizer.vocab_size,
        ],
        "sources": {
            split: [[entry["sha256"], *split_name(entry["name"])] for entry in entries]
            for split, entries in sources.items()
        },
        "options": [request["validation_fraction"], request["max_documents"]],
        "passkey": [request["passkey"], request["seed"]] if request.get("passkey") else None,
    }
    key = cache_key(content)
    final = os.path.join(request["cache"], key)
    manifest = read_manifest(final)
    cached = manifest is not None
    if not cached:
        manifest = fill_cache(request, tokenizer, sources, key, final, violations)
    check_lengths(request, manifest["tokens"]["train"], manifest["tokens"]["validation"])
    return {
        "tokens": final,
        "documents": sum(manifest["documents"].values()),
        "train_tokens": manifest["tokens"]["train"],
        "validation_tokens": manifest["tokens"]["validation"],
        "cached": cached,
    }


def fill_cache(request, tokenizer, sources, key, final, violations):
    aside = FolderAside(request["cache"], key)
    try:
        shards = write_shards(request, tokenizer, aside.path, violations)
        check_lengths(request, shards["train"].tokens, shards["validation"].tokens)
        write_passkey(request, tokenizer, aside.path, violations)
        manifest = write_manifest(aside.path, shards, tokenizer, sources, request, key)
        aside.commit(final)
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
