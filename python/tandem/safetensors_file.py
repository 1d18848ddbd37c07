"""safetensors by hand, one tensor in memory at a time: the runtime environment has numpy alone.

A file is a u64 header length, a JSON header {name: {dtype, shape, data_offsets}}, and the bytes.
Anything wrong with a file is a ValueError that names it.
"""

import json
import math
import os
import struct

import numpy as np

ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
MAX_HEADER_BYTES = 100_000_000


class SafetensorsReader:
    def __init__(self, path):
        self.path = path
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            prefix = file.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
            if length > min(size - 8, MAX_HEADER_BYTES):
                raise ValueError(f"{path}: no safetensors file")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        self.start, self.entries = 8 + length, header
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            known = ITEM_BYTES.get(entry["dtype"])
            if known is None:
                raise ValueError(f"{path}: {name} is {entry['dtype']}; allowed: F32, F16, BF16")
            if end - begin != known * math.prod(entry["shape"]) or self.start + end > size:
                raise ValueError(f"{path}: {name} lies outside the file")

    def bytes_of(self, name):
        begin, end = self.entries[name]["data_offsets"]
        with open(self.path, "rb") as file:
            file.seek(self.start + begin)
            return file.read(end - begin)

    def floats(self, name):
        """As float32."""
        entry, raw = self.entries[name], self.bytes_of(name)
        if entry["dtype"] == "BF16":
            wide = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            wide = np.frombuffer(raw, "<f4" if entry["dtype"] == "F32" else "<f2")
        return wide.astype(np.float32).reshape(entry["shape"])


def write_safetensors(path, tensors):
    """tensors: {name: (dtype, shape, function that gives the bytes)}. Written aside and renamed."""
    header, at = {"__metadata__": {"format": "pt"}}, 0
    names = sorted(tensors, key=lambda n: (-ITEM_BYTES[tensors[n][0]], n))  # wide ones first
    for name in names:
        dtype, shape, _ = tensors[name]
        size = ITEM_BYTES[dtype] * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path + ".tmp", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            file.write(tensors[name][2]())
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".tmp", path)
    return at
