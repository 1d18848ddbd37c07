"""Token shards: Megatron's .bin/.idx pair, one sequence per document.

NAME.bin holds the ids, one document after the other. NAME.idx, little-endian:

    "MMIDIDX\\0\\0" | u64 version 1 | u8 dtype (4: i32, 8: u16) | u64 sequences n
    u64 number of document indices, n+1
    i32 lengths[n] | i64 byte offsets[n] | i64 document index[n+1] = 0 ... n
"""

import hashlib
import os
import struct

import numpy

MAGIC = b"MMIDIDX\x00\x00"
CODES = {"u16": 8, "i32": 4}
TYPES = {"u16": "<u2", "i32": "<i4"}


def dtype_for(vocab_size):
    return "u16" if vocab_size <= 65536 else "i32"


class ShardWriter:
    """Appends documents; Close writes the index and makes both files durable."""

    def __init__(self, prefix, dtype):
        self.prefix, self.dtype = prefix, dtype
        self.lengths, self.max_id = [], -1
        self.file = open(prefix + ".bin", "wb")

    def append(self, ids):
        """ids: a non-empty list of integers that fit the dtype."""
        self.max_id = max(self.max_id, max(ids))
        self.lengths.append(len(ids))
        self.file.write(numpy.asarray(ids, dtype=TYPES[self.dtype]).tobytes())

    @property
    def tokens(self):
        return sum(self.lengths)

    def close(self):
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        count, width = len(self.lengths), numpy.dtype(TYPES[self.dtype]).itemsize
        lengths = numpy.asarray(self.lengths, dtype="<i4")
        ends = numpy.cumsum(lengths, dtype="<i8") * width
        offsets = numpy.concatenate((numpy.zeros(1, "<i8"), ends))[:count].astype("<i8")
        head = MAGIC + struct.pack("<QBQQ", 1, CODES[self.dtype], count, count + 1)
        documents = numpy.arange(count + 1, dtype="<i8")
        write_durably(
            self.prefix + ".idx", head + lengths.tobytes() + offsets.tobytes() + documents.tobytes()
        )


def read_shard(prefix):
    """All documents of a small shard, as lists of ids. For passkey prompts and tests."""
    with open(prefix + ".idx", "rb") as file:
        index = file.read()
    code, count = struct.unpack_from("<BQ", index, len(MAGIC) + 8)
    dtype = next(name for name, known in CODES.items() if known == code)
    start = len(MAGIC) + struct.calcsize("<QBQQ")
    lengths = numpy.frombuffer(index, "<i4", count, start)
    ids = numpy.fromfile(prefix + ".bin", dtype=TYPES[dtype])
    return [part.tolist() for part in numpy.split(ids, numpy.cumsum(lengths)[:-1])]


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
