"""The job's first stage: text to token shards, cached by content.

    python -m tandem.prepare --request prepare.json

Request: {"version": 1, "tokenizer": model folder, "cache": folder, "train": [paths],
"validation": [paths], "validation_fraction": 0.02, "max_documents": 0, "sequence_length": 512,
"seed": 0}, and where they are wanted

    "weights": [real per item of train]   "text_key": "text"   "train_on_prompt": false
    "passkey": {"prompts": 32, "distances": [16, 128, 384], "length": 512}
    "needle", "recall", "key_value": settings of long_range.py
    "suites": [paths of suite_files.py's]   "suite_items": 0   "bos": "model" or "none"

Result: a folder <cache>/<key> with {train,validation}.{bin,idx}, their masks (token_shards.py),
passkey.json, long_range.json, suites.{json,bin,idx} and manifest.json (with the digests of all
others). With weights each item of `train` is a shard of its own, train-0, train-1, ..., named with
its weight under "train_shards"; max_documents then counts in each. The key is the SHA-256 of what
the content depends on, so the same request again costs only the digests of its files. The folder is
written aside, made durable and renamed: it is whole or it is not there.

Says JSON lines on stdout: {"event": "progress", "documents", "tokens"}, then {"event": "result",
"tokens": folder, "documents", "train_tokens", "validation_tokens", "cached"}, or one {"event":
"error", "field", "message"} with all that is wrong, a line each. What it took stands in
prepare_cost.json beside the request (prepare_cost.py). Exit codes: 0 done, 2 the user's
data or model folder cannot be used, 1 anything else.
"""

import argparse
import errno
import json
import os
import sys

from tandem.long_range import make_long_range
from tandem.model_tokenizer import ModelTokenizer
from tandem.passkey import make_prompts
from tandem.prepare_cost import PrepareCost
from tandem.sources import (
    Reading,
    check_weights,
    digest_source,
    digest_sources,
    held_out_rank,
    survey,
)
from tandem.suites import write_suites
from tandem.token_cache import FolderAside, cache_key, read_manifest
from tandem.token_manifest import check_lengths, content_of, train_shards, write_manifest
from tandem.token_shards import read_shard, write_durably
from tandem.tokenising import Tokenising, say
from tandem.violations import DataRefused, Violations

FILLER_TOKENS = 1 << 22  # of held-out text, in which passkeys and facts are hidden
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


# ---------------------------------------------------------------- the folder's files


def write_shards(request, tokenizer, folder, violations, cost):
    reading = Reading(request, tokenizer, violations)
    threshold, extent = survey(request, reading)
    names = reading.shard_names()
    work = Tokenising(tokenizer, folder, [*dict.fromkeys(names), "validation"])
    cost.expect(extent, work)
    for index, document in reading.documents("train"):
        held_out = threshold is not None and held_out_rank(document) < threshold
        work.add("validation" if held_out else names[index], document)
    for _, document in reading.documents("validation"):
        work.add("validation", document)
    violations.raise_if_any()
    work.close()
    return work.shards


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


# ---------------------------------------------------------------- all of it


def prepare(request, cost=None):
    """Returns the result event's fields; a PrepareCost learns what to expect. Raises DataRefused."""
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
        named = {**sources, "suites": suites}
        manifest = fill_cache(request, tokenizer, named, key, violations, cost or PrepareCost())
    return {
        "tokens": final,
        "documents": sum(manifest["documents"].values()),
        "train_tokens": manifest["tokens"]["train"],
        "validation_tokens": manifest["tokens"]["validation"],
        "cached": cached,
    }


def fill_cache(request, tokenizer, sources, key, violations, cost):
    aside = FolderAside(request["cache"], key)
    try:
        shards = write_shards(request, tokenizer, aside.path, violations, cost)
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


def told_once(violations, request):
    """Recipe diagnose has one text, which is asked for as both splits: a fault of it is one fault."""
    if request["train"] != request["validation"]:
        return violations
    rest = [each for each in violations if not each[0].startswith("data.train")]
    return rest or violations


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
    path, cost = parser.parse_args(arguments).request, PrepareCost()
    request = read_request(path)
    try:
        result = prepare(request, cost)
        cost.write(os.path.dirname(path), result)
        say("result", **result)
    except DataRefused as refused:
        say_refused(told_once(refused.violations, request))
        return 2
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        print(f"the tokens cannot be written below {request['cache']}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
