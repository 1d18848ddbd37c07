"""manifest.json of a token folder, and the key that names the folder: what its content depends on."""

import json
import os

from tandem.documents import source_of
from tandem.record_forms import ALPACA_TEMPLATE
from tandem.token_shards import sha256_of, write_durably
from tandem.violations import Violations

CODE_VERSION = 2  # raise it when the same input would give other shards
EVALUATION_KEYS = ("passkey", "needle", "recall", "key_value", "suite_items", "bos")


def content_of(request, tokenizer, sources, suites):
    """What the folder's content depends on."""
    template = tokenizer.chat_template
    wanted = {name: request.get(name) for name in EVALUATION_KEYS if request.get(name)}
    return {
        "code": CODE_VERSION,
        "tokenizer": [
            tokenizer.sha256,
            tokenizer.library,
            tokenizer.bos,
            tokenizer.eos,
            tokenizer.vocab_size,
            tokenizer.max_length,
            template and [template.source, template.variables],
        ],
        "sources": {
            split: [
                [entry["sha256"], *source_of(path)[1:]]
                for path, entry in zip(request[split], entries)
            ]
            for split, entries in sources.items()
        },
        "options": [
            request["validation_fraction"],
            request["max_documents"],
            request.get("weights") or [],
            request.get("text_key") or "text",
            bool(request.get("train_on_prompt")),
        ],
        "evaluation": [wanted, request["seed"], request["sequence_length"]] if wanted else None,
        "suites": suites,
    }


def train_shards(request, shards):
    """The manifest's list: what training draws from, and in which proportion."""
    weights = request.get("weights") or [1.0]
    names = [name for name in shards if name != "validation"]
    return [
        {"name": name, "weight": weight, **counts(shards[name])}
        for name, weight in zip(names, weights)
    ]


def counts(shard):
    return {
        "documents": len(shard.lengths),
        "tokens": shard.tokens,
        "masked": shard.mask is not None,
    }


def check_lengths(request, train, held_out):
    """A chunk is read only while more than sequence_length tokens are left.

    train: as train_shards; held_out: tokens.
    """
    violations, needed = Violations(), request["sequence_length"] + 1
    weighted = bool(request.get("weights"))
    for index, shard in enumerate(train):
        if shard["tokens"] >= needed:
            continue
        violations.add(
            f"data.train[{index}]" if weighted else "data.train",
            f"{shard['tokens']} tokens in all; a sequence of data.sequence_length needs {needed}: "
            "give more text or a shorter data.sequence_length",
        )
    if held_out < needed and request["validation"]:
        violations.add(
            "data.validation",
            f"{held_out} tokens in all; a sequence of data.sequence_length needs {needed}: "
            "give more text or a shorter data.sequence_length",
        )
    elif held_out < needed:
        violations.add(
            "data.validation_fraction",
            f"{held_out} tokens are held out; a sequence of data.sequence_length needs "
            f"{needed}: give more text, a larger data.validation_fraction or a shorter "
            "data.sequence_length",
        )
    violations.raise_if_any()


def write_manifest(folder, shards, tokenizer, sources, request, key):
    files = {
        name: {
            "bytes": os.path.getsize(os.path.join(folder, name)),
            "sha256": sha256_of(os.path.join(folder, name)),
        }
        for name in sorted(os.listdir(folder))
    }
    held_out = shards["validation"]
    train = train_shards(request, shards)
    manifest = {
        "version": 1,
        "key": key,
        "tokenizer_sha256": tokenizer.sha256,
        "tokenizer_library": tokenizer.library,
        "vocab_size": tokenizer.vocab_size,
        "bos": tokenizer.bos,
        "eos": tokenizer.eos,
        "dtype": held_out.dtype,
        "max_id": max(shard.max_id for shard in shards.values()),
        "sources": sources,
        "instruction_template": ALPACA_TEMPLATE,
        "validation": "files" if request["validation"] else "held-out documents",
        "train_shards": train,
        "validation_masked": held_out.mask is not None,
        "documents": {
            "train": sum(shard["documents"] for shard in train),
            "validation": len(held_out.lengths),
        },
        "tokens": {
            "train": sum(shard["tokens"] for shard in train),
            "validation": held_out.tokens,
        },
        "files": files,
    }
    write_durably(os.path.join(folder, "manifest.json"), json.dumps(manifest, indent=1).encode())
    return manifest
