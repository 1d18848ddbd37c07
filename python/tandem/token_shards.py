"""Token shards: Megatron's .bin/.idx pair, one sequence per document.

NAME.bin holds the ids, one document after the other. NAME.idx, little-endian:

    "MMIDIDX\\0\\0" | u64 version 1 | u8 dtype (1: u8, 4: i32, 8: u16) | u64 sequences n
    u64 number of document indices, n+1
    i32 lengths[n] | i64 byte offsets[n] | i64 document index[n+1] = 0 ... n

NAME.mask.bin/.idx, of the same lengths, is there where not every token is a label: u8, 1 where it
is one. Documents are written as they come: four bytes of memory for each.
"""

import hashlib
import json
import os
import struct
from array import array

import numpy

from tandem.violations import BadFile

MAGIC = b"MMIDIDX\x00\x00"
CODES = {"u8": 1, "i32": 4, "u16": 8}
TYPES = {"u8": "u1", "i32": "<i4", "u16": "<u2"}
INDEX_BLOCK = 1 << 20


def dtype_for(vocab_size):
    return "u16" if vocab_size <= 65536 else "i32"


class ShardWriter:
    """Appends documents; close writes the index and makes both files durable."""

    def __init__(self, prefix, dtype):
        self.prefix, self.dtype = prefix, dtype
        self.lengths, self.max_id, self.tokens = array("i"), -1, 0
        self.file = open(prefix + ".bin", "wb")

    def append(self, ids):
        """ids: a non-empty list of integers that fit the dtype."""
        values = numpy.asarray(ids, dtype=TYPES[self.dtype])
        self.max_id = max(self.max_id, int(values.max()))
        self.lengths.append(len(ids))
        self.tokens += len(ids)
        self.file.write(values.tobytes())

    def close(self):
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        with open(self.prefix + ".idx", "wb") as file:
            self.write_index(file)
            file.flush()
            os.fsync(file.fileno())

    def write_index(self, file):
        count, width = len(self.lengths), numpy.dtype(TYPES[self.dtype]).itemsize
        lengths = numpy.array(self.lengths, dtype="<i4")
        file.write(MAGIC + struct.pack("<QBQQ", 1, CODES[self.dtype], count, count + 1))
        file.write(lengths.tobytes())
        begin = 0
        for start in range(0, count, INDEX_BLOCK):
            ends = begin + numpy.cumsum(lengths[start : start + INDEX_BLOCK], dtype="<i8")
            file.write((numpy.concatenate(([begin], ends[:-1])) * width).astype("<i8").tobytes())
            begin = int(ends[-1])
        for start in range(0, count + 1, INDEX_BLOCK):
            stop = min(start + INDEX_BLOCK, count + 1)
            file.write(numpy.arange(start, stop, dtype="<i8").tobytes())


class LabelledShardWriter(ShardWriter):
    """A shard with its mask, which comes to be with the first token that is no label."""

    def __init__(self, prefix, dtype):
        super().__init__(prefix, dtype)
        self.mask = None

    def append(self, ids, labels=None):
        """labels: 0 or 1 for each id; None: all are labels."""
        if labels is not None and self.mask is None:
            self.mask = ShardWriter(self.prefix + ".mask", "u8")
            for length in self.lengths:
                self.mask.append(numpy.ones(length, "u1"))
        super().append(ids)
        if self.mask is not None:
            self.mask.append(numpy.ones(len(ids), "u1") if labels is None else labels)

    def close(self):
        super().close()
        if self.mask is not None:
            self.mask.close()


def read_index(prefix):
    """(dtype, lengths) of a shard. Raises BadFile."""
    path, head = prefix + ".idx", len(MAGIC) + struct.calcsize("<QBQQ")
    with open(path, "rb") as file:
        index = file.read()
    version, code, count = 0, 0, 0
    if index.startswith(MAGIC) and len(index) >= head:
        version, code, count, _ = struct.unpack_from("<QBQQ", index, len(MAGIC))
    dtype = next((name for name, known in CODES.items() if known == code), None)
    if version != 1 or dtype is None or len(index) < head + 12 * count:
        raise BadFile(f"{path} is not a Megatron index of u8, u16 or i32, or is cut short")
    return dtype, numpy.frombuffer(index, "<i4", count, head)


def mapped(prefix):
    """(ids as one mapped array, ends of the documents). Raises BadFile."""
    dtype, lengths = read_index(prefix)
    size, width = os.path.getsize(prefix + ".bin"), numpy.dtype(TYPES[dtype]).itemsize
    if size != width * int(lengths.sum(dtype="i8")):
        raise BadFile(f"{prefix}.bin has {size} bytes; its index promises another number")
    ids = numpy.memmap(prefix + ".bin", TYPES[dtype], "r") if size else numpy.zeros(0, "u1")
    return ids, numpy.cumsum(lengths, dtype="i8")


def shard_files(prefix):
    """Files that a shard's documents depend on; last its manifest. Raises BadFile without one."""
    files = [prefix + ".bin", prefix + ".idx"]
    if os.path.exists(prefix + ".mask.idx"):
        files += [prefix + ".mask.bin", prefix + ".mask.idx"]
    manifest = os.path.join(os.path.dirname(prefix), "manifest.json")
    if not os.path.isfile(manifest):
        raise BadFile(
            f"{prefix}.bin needs a manifest.json beside it that names its tokenizer_sha256"
        )
    return [*files, manifest]


def shard_documents(prefix, tokenizer):
    """(ids, labels or None) of each document, where `tokenizer` has made them. Raises BadFile."""
    try:
        check_origin(prefix, tokenizer)
        ids, ends = mapped(prefix)
        mask, mask_ends = mapped(prefix + ".mask") if len(shard_files(prefix)) > 3 else (None, ends)
        if not numpy.array_equal(ends, mask_ends):
            raise BadFile(f"{prefix}.mask has other lengths than {prefix}")
        begin = 0
        for end in ends.tolist():
            yield ids[begin:end], None if mask is None else mask[begin:end]
            begin = end
    except OSError as error:
        raise BadFile(f"{prefix} cannot be read: {error.strerror or error}") from error


def check_origin(prefix, tokenizer):
    manifest = shard_files(prefix)[-1]
    try:
        with open(manifest, encoding="utf-8") as file:
            digest = json.load(file)["tokenizer_sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadFile(f"{manifest} does not name tokenizer_sha256") from error
    if tokenizer is None or digest != tokenizer.sha256:
        raise BadFile(
            f"{prefix}.bin is made with another tokenizer ({digest}) than the model's; "
            "give the text itself"
        )


def read_shard(prefix, limit=None):
    """Documents of a shard as lists of ids: all, or the first ones of `limit` tokens in all."""
    ids, ends = mapped(prefix)
    if limit is not None:
        ends = ends[: 1 + int(numpy.searchsorted(ends, limit))]
    begins = [0, *ends[:-1].tolist()]
    return [ids[begin:end].tolist() for begin, end in zip(begins, ends.tolist())]


def write_durably(path, content):
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
