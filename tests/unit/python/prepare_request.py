"""What the tests of tandem.prepare share: a tiny tokenizer, texts, and the request."""

import json
import os

import pytest
import tokenizers
from tandem import prepare, token_shards
from tandem.violations import DataRefused

WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]


def make_model(folder, vocab_size=400, **settings):
    """A model folder with a byte-level tokenizer: 2 special tokens, 256 bytes."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<s>": 0, "</s>": 1, **{c: i + 2 for i, c in enumerate(alphabet)}}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"vocab_size": vocab_size, "bos_token_id": 0, "eos_token_id": 1}
    (folder / "config.json").write_text(json.dumps(config))
    settings = {"bos_token": "<s>", "eos_token": "</s>", **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return tokenizer


def text(number, words=40):
    return f"Document {number}: " + " ".join(WORDS[(number * 7 + i * i) % 10] for i in range(words))


def jsonl(*numbers):
    return "".join(json.dumps({"text": text(n)}) + "\n" for n in numbers).encode()


@pytest.fixture
def request_of(tmp_path):
    tokenizer = make_model(tmp_path / "model")
    (tmp_path / "train.jsonl").write_bytes(jsonl(*range(60)))

    def make(**changes):
        request = {
            "version": 1, "tokenizer": str(tmp_path / "model"), "cache": str(tmp_path / "cache"),
            "train": [str(tmp_path / "train.jsonl")], "validation": [], "validation_fraction": 0.1,
            "max_documents": 0, "sequence_length": 64, "seed": 0,
        }  # fmt: skip
        return {**request, **changes}

    make.tokenizer, make.folder = tokenizer, tmp_path
    return make


def cached(request):
    cache = request["cache"]
    return sorted(os.listdir(cache)) if os.path.isdir(cache) else []


def refused(request):
    before = cached(request)
    with pytest.raises(DataRefused) as caught:
        prepare.prepare(request)
    assert cached(request) == before, "something is left in the cache"
    return caught.value.violations


def shards_of(result):
    return {
        s: token_shards.read_shard(os.path.join(result["tokens"], s))
        for s in ("train", "validation")
    }
