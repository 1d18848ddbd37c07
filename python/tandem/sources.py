"""A request's files: what they are, what is wrong with them, and their documents in order.

Everything is read once before a token is made, so that all that is wrong is told at once.
"""

import hashlib
import os

from tandem.documents import read_documents, source_of
from tandem.prepare_cost import Extent
from tandem.record_forms import RecordForms
from tandem.token_cache import cache_key
from tandem.token_shards import sha256_of
from tandem.violations import BadFile


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
                rows = ", or other rows" if source_of(path).sliced else ""
                self.violations.add(field, f"{path} holds no text; name a file with text{rows}")
        except BadFile as problem:
            self.violations.add(field, str(problem))


def held_out_rank(document):
    """In [0, 1), from the content alone: the same document is held out in every job."""
    return int.from_bytes(hashlib.sha256(document.content).digest()[:8], "big") / 2**64


def survey(request, reading):
    """Reads everything once before tokenising: raises all that is wrong.

    Returns the threshold of the hold-out, None if validation files are given, and the Extent.
    """
    violations, lowest, documents, extent = reading.violations, 2.0, 0, Extent()
    for _, document in reading.documents("train"):
        lowest = min(lowest, held_out_rank(document))
        documents += 1
        extent.add(document)
    for _, document in reading.documents("validation"):
        extent.add(document)
    extent.close()
    violations.raise_if_any()
    if request["validation"]:
        return None, extent
    if documents < 2:
        violations.add(
            "data.validation",
            "data.train is a single document and a part of it cannot be held out; name a file in "
            "data.validation, or give the text as several documents (.jsonl, or several .txt)",
        )
        violations.raise_if_any()
    # At least one document, also where the fraction of a few would be none.
    return max(request["validation_fraction"], lowest + 2**-40), extent
