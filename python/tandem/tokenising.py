"""Documents to ids and labels, batch by batch, into the shards of a folder.

A document is BOS ids EOS; its parts are tokenised apart and joined, BOS counts to the first part
and EOS to the last. A document that a chat template has rendered stands as it is. Memory is one
batch of texts.
"""

import json
import os
import time

from tandem.token_shards import LabelledShardWriter, dtype_for
from tandem.violations import DataRefused

BATCH_CHARACTERS = 1 << 20
PROGRESS_SECONDS = 1.0


def say(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


class Tokenising:
    def __init__(self, tokenizer, folder, names):
        """names: of the shards, as `train`."""
        self.tokenizer, self.said = tokenizer, time.monotonic()
        dtype = dtype_for(tokenizer.vocab_size)
        self.shards = {
            name: LabelledShardWriter(os.path.join(folder, name), dtype) for name in names
        }
        self.waiting, self.characters = [], 0

    def add(self, name, document):
        self.waiting.append((name, document))
        self.characters += sum(len(text) for text, _ in document.parts)
        self.characters += 0 if document.tokens is None else len(document.tokens[0])
        if self.characters >= BATCH_CHARACTERS:
            self.flush()

    def flush(self):
        batch, self.waiting, self.characters = self.waiting, [], 0
        made = self.made([document for _, document in batch])
        for (name, _), (ids, labels) in zip(batch, made):
            self.check(ids)
            if ids:
                self.shards[name].append(ids, labels if 0 in labels else None)
        if time.monotonic() - self.said >= PROGRESS_SECONDS:
            self.said = time.monotonic()
            say("progress", documents=self.documents(), tokens=self.tokens())

    def made(self, documents):
        """Ids and labels of each."""
        texts = [text for document in documents for text, _ in document.parts]
        encoded = iter(self.tokenizer.encode_batch(texts))
        return (self.joined(document, encoded) for document in documents)

    def joined(self, document, encoded):
        if document.tokens is not None:
            ids, labels = document.tokens
            return ids.tolist(), [1] if labels is None else labels.tolist()
        ids, labels = [], []
        for _, trained in document.parts:
            part = next(encoded)
            ids += part
            labels += [int(trained)] * len(part)
        if document.whole:
            return ids, labels
        before, after = self.tokenizer.edges()
        first, last = document.parts[0][1], document.parts[-1][1]
        return before + ids + after, [int(first)] * len(before) + labels + [int(last)] * len(after)

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
        say("progress", documents=self.documents(), tokens=self.tokens())
