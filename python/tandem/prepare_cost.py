"""What preparing was expected to take and what it took: prepare_cost.json beside the request.

    {"version": 1, "cached": false, "tokens", "seconds", "peak_memory_bytes",
     "estimate": {"tokens", "seconds", "memory_bytes"}}

Everything is read once before a token is made (sources.py), so the extent of the text is known by
then; a rehearsal makes tokens of the first documents and drops them. Expected are the seconds
passed so far, those of reading once more, and the rest at the rehearsal's rate. Not in it: prompts
and suites. No estimate where the tokens lay in the cache.
"""

import json
import os
import resource
import time

from tandem.token_shards import write_durably
from tandem.tokenising import BATCH_CHARACTERS

FILE = "prepare_cost.json"
REHEARSED_SHARE = 16  # of the text, or fewer characters than this:
REHEARSED_CHARACTERS = 1 << 18


class Extent:
    """How much text there is, and its first documents."""

    def __init__(self):
        self.started = time.monotonic()
        self.seconds = self.characters = self.tokens = 0  # tokens: of shards, made already
        self.first, self.first_characters = [], 0

    def add(self, document):
        if document.tokens is not None:
            self.tokens += len(document.tokens[0])
            return
        characters = sum(len(text) for text, _ in document.parts)
        self.characters += characters
        if self.first_characters < REHEARSED_CHARACTERS:
            self.first.append((document, characters))
            self.first_characters += characters

    def close(self):
        self.seconds = time.monotonic() - self.started

    def sample(self):
        """(documents to rehearse with, their characters): at least one."""
        documents, characters = [], 0
        for document, count in self.first:
            documents.append(document)
            characters += count
            if characters >= self.characters // REHEARSED_SHARE:
                break
        return documents, characters


class PrepareCost:
    def __init__(self):
        self.started, self.estimate = time.monotonic(), None

    def expect(self, extent, work):
        """work: the Tokenising that follows."""
        documents, characters = extent.sample()
        before, start = peak_bytes(), time.monotonic()
        tokens = sum(len(ids) for ids, _ in work.made(documents))
        seconds, grown = time.monotonic() - start, peak_bytes() - before
        scale = extent.characters / characters if characters else 0
        batch = min(BATCH_CHARACTERS, extent.characters) / characters if characters else 0
        passed = time.monotonic() - self.started
        self.estimate = {
            "tokens": round(extent.tokens + tokens * scale),
            "seconds": passed + extent.seconds + seconds * scale,
            "memory_bytes": before + round(grown * batch),
        }

    def write(self, folder, result):
        actual = {
            "version": 1,
            "cached": result["cached"],
            "tokens": result["train_tokens"] + result["validation_tokens"],
            "seconds": time.monotonic() - self.started,
            "peak_memory_bytes": peak_bytes(),
        }
        if self.estimate:
            actual["estimate"] = self.estimate
        write_durably(os.path.join(folder, FILE), json.dumps(actual).encode())


def peak_bytes():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
