"""The lab's stream of tokens as text files, for jobs that start from text (tests/bench/retained.yaml).

    tests/bench/lab_text.py --shared ../shared --out work/lab

Writes validation.jsonl (the documents that end within the stream's first 131,072 tokens) and train.jsonl (those that
begin after it), one {"text": ...} a line. Tokenised again, with what the tokenizer puts around a document, they give the
stream's ids: checked on every document, so that such a job is measured on the text of the acceptance table.
Needs numpy and tokenizers.
"""
import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np
from acceptance import VALIDATION_TOKENS, read_stream
from tokenizers import Tokenizer

BEGIN, END = 0, 1  # of a document
BATCH = 256  # documents that are tokenised together


def documents(stream):
    """(first id's place, place behind the last) of each, without BEGIN and END."""
    ends = np.flatnonzero(stream == END)
    starts = np.concatenate([[0], ends[:-1] + 1])
    assert (stream[starts] == BEGIN).all(), "a document does not begin with its mark"
    return zip((starts + 1).tolist(), ends.tolist())


def split_of(begin, end):
    """Which file a document belongs to; None for the one that both would have a part of."""
    if end <= VALIDATION_TOKENS:
        return "validation"
    return "train" if begin > VALIDATION_TOKENS else None


def texts_of(tokenizer, batch):
    """The texts of many documents' ids, each of which is tokenised to its ids again."""
    texts = tokenizer.decode_batch(batch, skip_special_tokens=False)
    for ids, encoding in zip(batch, tokenizer.encode_batch(texts, add_special_tokens=False)):
        if encoding.ids != ids:
            sys.exit("a document is tokenised otherwise than it was: is this the stream's tokenizer?")
    return texts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = Path(__file__).resolve().parents[2]
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("TANDEM_SHARED", root.parent / "shared")))
    parser.add_argument("--out", type=Path, default=root / "work/lab")
    options = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(options.shared / "models/base-22m/tokenizer.json"))
    stream = read_stream(options.shared)
    options.out.mkdir(parents=True, exist_ok=True)
    splits = {"train": [], "validation": []}
    for begin, end in documents(stream):
        split = split_of(begin, end)
        if split:
            splits[split].append(stream[begin:end].tolist())
    for split, ids in splits.items():
        with open(options.out / f"{split}.jsonl", "w") as out:
            for first in range(0, len(ids), BATCH):
                for text in texts_of(tokenizer, ids[first : first + BATCH]):
                    out.write(json.dumps({"text": text}) + "\n")
        print(f"{split}.jsonl: {len(ids)} documents")


if __name__ == "__main__":
    main()
