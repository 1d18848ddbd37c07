"""Benchmark suites in a job's tokens: questions (suite_files.py) as requests (suite_requests.py).

Written: suites.bin/.idx, a shard with a sequence per request, and suites.json:

    {"version": 1, "bos", "max_length", "suites": [{"name", "metric", "items": [
        {"first": its first request, "starts": [where the scored tokens begin, per request],
         "lengths": [characters of each choice], "answer", "group", "words", "bytes"}]}]}
"""

import json
import os
from itertools import islice

from tandem.suite_files import first_of_each_group, read_suite
from tandem.suite_requests import RequestMaker, chosen, rolled
from tandem.token_shards import ShardWriter, dtype_for, write_durably
from tandem.violations import BadDocument

BATCH_ITEMS = 256


class SuiteWriter:
    def __init__(self, tokenizer, folder, bos):
        self.folder, self.bos, self.maker = folder, bos, RequestMaker(tokenizer, bos)
        self.shard = ShardWriter(os.path.join(folder, "suites"), dtype_for(tokenizer.vocab_size))
        self.suites = []

    def add(self, header, items, path, field, violations):
        suite = {"name": header["suite"], "metric": header["metric"], "items": []}
        while batch := list(islice(items, BATCH_ITEMS)):
            try:
                self.add_batch(suite, batch)
            except BadDocument as problem:
                violations.add(field, f"{path}: {problem}")
                return
        grouped = {("group" in item) for item in suite["items"]}
        if len(grouped) != 1 and not violations.names(field):
            wrong = "no item; convert it again" if not grouped else "items with and without `group`"
            violations.add(field, f"{path} has {wrong}")
        if any(known["name"] == suite["name"] for known in self.suites):
            violations.add(field, f"{path} is a second suite of the name {suite['name']}")
        self.suites.append(suite)

    def add_batch(self, suite, batch):
        if suite["metric"] == "perplexity":
            made = (rolled(self.maker, item) for item in batch)
        else:
            made = chosen(self.maker, suite["metric"], batch)
        for item, (requests, entry) in zip(batch, made):
            if not requests:
                continue
            first = len(self.shard.lengths)
            for ids, _ in requests:
                self.shard.append(ids)
            group = {"group": item["group"]} if "group" in item else {}
            starts = [start for _, start in requests]
            suite["items"].append({"first": first, "starts": starts, **entry, **group})

    def close(self):
        self.shard.close()
        content = {
            "version": 1,
            "bos": self.bos,
            "max_length": self.maker.max_length,
            "suites": self.suites,
        }
        path = os.path.join(self.folder, "suites.json")
        write_durably(path, json.dumps(content, separators=(",", ":")).encode())


def write_suites(request, tokenizer, folder, violations):
    """suites.{json,bin,idx} of the request's suites; nothing without suites. Raises DataRefused."""
    paths = request.get("suites") or []
    if not paths:
        return
    writer = SuiteWriter(tokenizer, folder, request.get("bos") or "model")
    for index, path in enumerate(paths):
        field = f"evaluate.suites[{index}]"
        found = read_suite(path, field, violations)
        if found is None:
            continue
        header, items = found
        limited = first_of_each_group(items, request.get("suite_items") or 0)
        writer.add(header, limited, path, field, violations)
    if writer.shard.max_id >= tokenizer.vocab_size:
        violations.add(
            "model.path",
            f"the tokenizer gives the id {writer.shard.max_id}, but config.json's vocab_size is "
            f"{tokenizer.vocab_size}; the tokenizer belongs to another model",
        )
    violations.raise_if_any()
    writer.close()
