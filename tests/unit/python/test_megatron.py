"""Megatron-core's own IndexedDataset reads the shards that prepare writes, masks too."""

import json
import os

import numpy
import pytest
from prepare_request import jsonl, request_of, text  # noqa: F401
from tandem import prepare
from tandem.token_shards import read_shard

indexed_dataset = pytest.importorskip(
    "megatron.core.datasets.indexed_dataset", reason="deploy/requirements-tests.txt has megatron-core"
)


def assert_read_alike(prefix, dtype):
    theirs, ours = indexed_dataset.IndexedDataset(prefix), read_shard(prefix)
    assert len(theirs) == len(ours) > 0
    assert theirs.index.dtype == dtype
    assert theirs.document_indices.tolist() == list(range(len(ours) + 1))
    for index, ids in enumerate(ours):
        assert theirs[index].tolist() == ids
    assert theirs.get(len(ours) - 1, offset=2, length=5).tolist() == ours[-1][2:7]


@pytest.mark.parametrize("vocab_size, dtype", [(400, numpy.uint16), (70_000, numpy.int32)])
def test_megatron_reads_every_document_of_a_shard(request_of, tmp_path, vocab_size, dtype):  # noqa: F811
    config = tmp_path / "model/config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "vocab_size": vocab_size}))
    pairs = [json.dumps({"prompt": text(n), "response": text(n + 1)}) + "\n" for n in range(20)]
    (tmp_path / "train.jsonl").write_bytes("".join(pairs).encode() + jsonl(*range(20, 40)))
    tokens = prepare.prepare(request_of())["tokens"]
    for split in ("train", "validation"):
        assert_read_alike(os.path.join(tokens, split), dtype)
    assert_read_alike(os.path.join(tokens, "train.mask"), numpy.uint8)
