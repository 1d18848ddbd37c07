"""Benchmark suites: files of questions to tokenised requests, by lm-evaluation-harness's rules.

A suite file is JSONL, also .gz, .xz or .zst; tandem.convert_suite makes it from a benchmark's
published files. Its first line describes it:

    {"suite": "piqa", "metric": "acc"}     metric: acc, acc_norm, lambada, exact, perplexity

Each further line is an item:

    acc, acc_norm    {"context": "Question: ...\\nAnswer:", "choices": ["a", "b"], "answer": 0}
                     or, the same words behind several contexts (WinoGrande),
                     {"contexts": ["...", "..."], "continuation": "shared end", "answer": 1}
    lambada, exact   {"context": "...", "continuation": " word"}: right when it is what the model
                     would say, token by token
    perplexity       {"text": "..."}; "words" and "bytes" where they are not those of the text

A blank stands between context and choice; `continuation` of lambada and exact has its own. Items
may carry "group": the suite's score is then the mean over the groups (MMLU: over its subjects).

Written to the job's tokens: suites.bin/.idx, a shard with a sequence per request, and suites.json:

    {"version": 1, "bos", "max_length", "suites": [{"name", "metric", "items": [
        {"first": its first request, "starts": [where the scored tokens begin, per request],
         "lengths": [characters of each choice], "answer", "group", "words", "bytes"}]}]}

Rules of lm-evaluation-harness 0.4.13 that scores depend on: context and continuation are tokenised
together and cut where the context alone ends; blanks at the context's end belong to the
continuation; an empty context is one BOS (else EOS); what exceeds the model's length is cut from
the left; perplexity goes by windows that score each token once. `bos` "model" begins each text with
the model's BOS as its tokenizer does (also the rolling text, whose first window then shows it
twice); "none" leaves it out, as LoLCATs' numbers were made. Never mix the two.
"""

import json
import os
import re
from itertools import islice

from tandem.documents import guarded_blocks, numbered_lines, split_name
from tandem.record_forms import json_name, parse_line
from tandem.token_shards import ShardWriter, dtype_for, write_durably
from tandem.violations import BadDocument, BadFile

METRICS = ("acc", "acc_norm", "lambada", "exact", "perplexity")
CHOICE_METRICS = ("acc", "acc_norm")
BATCH_ITEMS = 256
DELIMITER = " "


# ---------------------------------------------------------------- suite files


def read_suite(path, field, violations):
    """(header, generator of items); None after a violation, which the generator also adds."""
    try:
        kind, compression = split_name(path)
        if kind != ".jsonl":
            raise BadFile(f"{path} must be a suite in .jsonl, as tandem.convert_suite writes it")
        lines = numbered_lines(path, guarded_blocks(path, compression))
        number, line = next(lines, (1, b"null"))
        header = parse_line(line)
        check_header(header, path)
    except (BadFile, BadDocument) as problem:
        violations.add(field, str(problem))
        return None
    return header, items_of(header, path, lines, field, violations)


def check_header(header, path):
    named = isinstance(header, dict) and isinstance(header.get("suite"), str)
    if not named or header.get("metric") not in METRICS:
        raise BadFile(
            f'{path}: the first line must be {{"suite": name, "metric": '
            f"{' | '.join(METRICS)}}}; tandem.convert_suite writes it"
        )


def items_of(header, path, lines, field, violations):
    try:
        for number, line in lines:
            try:
                yield checked_item(header["metric"], parse_line(line))
            except BadDocument as problem:
                violations.add(field, f"{path}, line {number}: {problem}")
                if violations.full(field):
                    return
    except BadFile as problem:
        violations.add(field, str(problem))


def checked_item(metric, item):
    """The item, if it has what its metric needs. Raises BadDocument."""
    if not isinstance(item, dict):
        raise BadDocument(f"a JSON {json_name(item)}; an object is needed")
    if metric == "perplexity":
        needed, options = {"text": str}, None
    elif metric not in CHOICE_METRICS:
        needed, options = {"context": str, "continuation": str}, None
    elif "contexts" in item:
        needed, options = {"contexts": list, "continuation": str}, "contexts"
    else:
        needed, options = {"context": str, "choices": list}, "choices"
    for key, kind in needed.items():
        check_value(item, key, kind)
    if options is None:
        return item
    if len(item[options]) < 2 or "" in item.get("choices", []):
        raise BadDocument(f"`{options}` must be two or more, no choice empty")
    answer = item.get("answer")
    if type(answer) is not int or not 0 <= answer < len(item[options]):
        raise BadDocument(f"`answer` is {answer!r}; must be in [0, {len(item[options])})")
    return item


def check_value(item, key, kind):
    value = item.get(key)
    if not isinstance(value, kind) or key == "continuation" and not value:
        wanted = "list of strings" if kind is list else "string"
        raise BadDocument(f"`{key}` is {value!r:.60}; a {wanted} is needed")
    if kind is list and not all(isinstance(entry, str) for entry in value):
        raise BadDocument(f"`{key}` must be a list of strings")


def first_of_each_group(items, limit):
    """The first `limit` items of each group; all with 0."""
    taken = {}
    for item in items:
        group = item.get("group")
        taken[group] = taken.get(group, 0) + 1
        if not limit or taken[group] <= limit:
            yield item


# ---------------------------------------------------------------- requests


class RequestMaker:
    """Texts to (ids, start of the scored ids), as lm-evaluation-harness makes them."""

    def __init__(self, tokenizer, bos):
        self.tokenizer, self.max_length = tokenizer, tokenizer.max_length
        self.bos = tokenizer.bos if bos == "model" else None
        self.bos_text = None if self.bos is None else tokenizer.token(self.bos)
        self.prefix = tokenizer.bos if tokenizer.bos is not None else tokenizer.eos

    def encode_all(self, texts):
        """Ids of each text, behind BOS unless the text itself begins with it."""
        encoded = self.tokenizer.encode_batch(texts)
        if self.bos is None:
            return encoded
        return [
            ids if text.startswith(self.bos_text) else [self.bos, *ids]
            for text, ids in zip(texts, encoded)
        ]

    def pairs(self, pairs):
        """Requests of (context, continuation) texts."""
        moved = [move_blanks(context, continuation) for context, continuation in pairs]
        whole = self.encode_all([context + continuation for context, continuation in moved])
        alone = self.encode_all([context for context, _ in moved])
        bare = iter(self.tokenizer.encode_batch([b for a, b in pairs if a == ""]))
        return [
            self.cut(*self.after_nothing(next(bare)))
            if context == ""
            else self.cut(before + ids[len(before) :], len(before))
            for (context, _), ids, before in zip(pairs, whole, alone)
        ]

    def after_nothing(self, ids):
        if self.prefix is None:
            raise BadDocument("the context is empty, and the model has neither BOS nor EOS")
        return ([self.prefix, *ids], 1) if ids[:1] != [self.prefix] else (ids, 1)

    def cut(self, ids, start):
        """The last max_length + 1 ids: the last one is only predicted."""
        if start < 1:
            raise BadDocument("the context is blank: nothing to predict from")
        if start >= len(ids):
            raise BadDocument("the continuation adds no token to the context")
        surplus = max(0, len(ids) - (self.max_length + 1))
        if surplus >= start:
            raise BadDocument(
                f"the continuation has {len(ids) - start} tokens; the model reads {self.max_length}"
            )
        return ids[surplus:], start - surplus

    def windows(self, text):
        """Requests that score each token of the text once, each within the model's length."""
        ids = self.encode_all([text])[0]
        if self.prefix is None:
            raise BadDocument("the model has neither BOS nor EOS to begin a text with")
        requests, done, longest = [], 0, self.max_length
        while done < len(ids):
            count = min(longest, len(ids) - done)
            end = done + count
            if done == 0:
                requests.append(([self.prefix, *ids[:end]], 1))
            else:
                requests.append((ids[end - longest - 1 : end], longest + 1 - count))
            done = end
        return requests


def move_blanks(context, continuation):
    bare = context.rstrip()
    return bare, context[len(bare) :] + continuation


def texts_of(metric, item):
    """[(context, continuation)] of a request each, and the characters of each choice."""
    if metric not in CHOICE_METRICS:
        return [(item["context"], item["continuation"])], [len(item["continuation"])]
    if "contexts" in item:
        pairs = [(context, DELIMITER + item["continuation"]) for context in item["contexts"]]
        return pairs, [len(context) for context in item["contexts"]]
    pairs = [(item["context"], DELIMITER + choice) for choice in item["choices"]]
    return pairs, [len(choice) for choice in item["choices"]]


def rolled(maker, item):
    """A text's requests and its entry in suites.json."""
    text = item["text"]
    entry = {
        "words": item.get("words", len(re.split(r"\s+", text))),
        "bytes": item.get("bytes", len(text.encode())),
    }
    return maker.windows(text), entry


def chosen(maker, metric, items):
    """The same of a batch of items with contexts and continuations."""
    described = [texts_of(metric, item) for item in items]
    requests = iter(maker.pairs([pair for pairs, _ in described for pair in pairs]))
    for item, (pairs, lengths) in zip(items, described):
        entry = {"lengths": lengths, "answer": item.get("answer", 0)}
        yield list(islice(requests, len(pairs))), entry


# ---------------------------------------------------------------- the job's files


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
