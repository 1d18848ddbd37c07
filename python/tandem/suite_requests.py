"""Questions of a suite to tokenised requests, by lm-evaluation-harness's rules.

The rules of lm-evaluation-harness 0.4.13 that scores depend on: context and continuation are
tokenised together and cut where the context alone ends; blanks at the context's end belong to the
continuation; an empty context is one BOS (else EOS); what exceeds the model's length is cut from
the left; perplexity goes by windows that score each token once. `bos` "model" begins each text with
the model's BOS as its tokenizer does (also the rolling text, whose first window then shows it
twice); "none" leaves it out, as LoLCATs' numbers were made. Never mix the two.
"""

import re
from itertools import islice

from tandem.suite_files import CHOICE_METRICS
from tandem.violations import BadDocument

DELIMITER = " "


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
