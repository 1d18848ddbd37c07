"""Reads tensors from a file of torch.save without running anything in it, and without torch.

A .pt file is a zip: data.pkl, a pickle that names tensors, and data/<key>, their bytes. A pickle can
call any function that it names; here it may name ordered dictionaries and torch's two functions that
describe a tensor, which become plain descriptions. Whatever else it names is refused by its name
before it could run. Tensors are read one at a time, when they are asked for.

    with TorchArchive(path) as archive:
        archive.tensors["name"]          # TensorPlace: dtype, shape
        archive.read("name")             # numpy, floats as float32

Anything wrong with the file is an ArchiveError that names file and fault.
"""

import collections
import math
import pickle
import zipfile
from dataclasses import dataclass

import numpy as np

MAX_PICKLE_BYTES = 64 << 20
# torch's storage class: bytes of an element, numpy's name of it.
STORAGES = {
    "FloatStorage": (4, "<f4"),
    "HalfStorage": (2, "<f2"),
    "BFloat16Storage": (2, "<u2"),
    "DoubleStorage": (8, "<f8"),
    "LongStorage": (8, "<i8"),
    "IntStorage": (4, "<i4"),
    "BoolStorage": (1, "?"),
}


class ArchiveError(ValueError):
    pass


@dataclass(frozen=True)
class StoragePlace:
    kind: str
    key: str
    count: int


@dataclass(frozen=True)
class TensorPlace:
    storage: StoragePlace
    offset: int
    shape: tuple
    strides: tuple


def describe_tensor(storage, offset, size, stride, *_):
    if not isinstance(storage, StoragePlace):
        raise ArchiveError("a tensor without a storage")
    numbers = [offset, *size, *stride]
    if len(size) != len(stride) or not all(type(n) is int and n >= 0 for n in numbers):
        raise ArchiveError(f"a tensor of shape {size!r}, strides {stride!r}, offset {offset!r}")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride))
    if math.prod(size) and last >= storage.count:
        raise ArchiveError(f"a tensor reaches element {last} of a storage of {storage.count}")
    return TensorPlace(storage, offset, tuple(size), tuple(stride))


def describe_parameter(tensor, *_):
    return tensor


class DescribingUnpickler(pickle.Unpickler):
    """Knows four names; no other can be looked up, let alone called."""

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return describe_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return describe_parameter
        if module == "torch" and name in STORAGES:
            return name  # a word: it cannot be called
        raise ArchiveError(f"it asks for {module}.{name}, which is no tensor; nothing was run")

    def persistent_load(self, pid):
        if not (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage"):
            raise ArchiveError(f"it asks for the object {pid!r}, which is no storage")
        _, kind, key, _, count = pid
        if kind not in STORAGES or not isinstance(key, str) or type(count) is not int or count < 0:
            raise ArchiveError(f"a storage {pid!r}")
        return StoragePlace(kind, key, count)


class TorchArchive:
    def __init__(self, path):
        self.path = path
        try:
            self.zip = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise ArchiveError(
                f"{path}: no archive of torch.save ({error}); files older than torch 1.6 are not read"
            ) from error
        try:
            self.tensors = self._describe()
        except Exception as error:  # whatever a hostile pickle provokes
            self.zip.close()
            if isinstance(error, ArchiveError):
                raise ArchiveError(f"{path}: {error}") from None
            raise ArchiveError(f"{path}: data.pkl cannot be read ({error!r})") from error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.zip.close()

    def _describe(self):
        found = [name for name in self.zip.namelist() if name.endswith("/data.pkl")]
        if len(found) != 1:
            raise ArchiveError(f"it has {len(found)} entries data.pkl; one is needed")
        self.folder = found[0][: -len("data.pkl")]
        if self.folder + "byteorder" in self.zip.namelist():
            if self.zip.read(self.folder + "byteorder") != b"little":
                raise ArchiveError("its numbers are big-endian")
        if self.zip.getinfo(found[0]).file_size > MAX_PICKLE_BYTES:
            raise ArchiveError(f"data.pkl has more than {MAX_PICKLE_BYTES} bytes")
        with self.zip.open(found[0]) as file:
            return named_tensors(DescribingUnpickler(file).load())

    def read(self, name):
        place = self.tensors[name]
        size, dtype = STORAGES[place.storage.kind]
        entry = f"{self.folder}data/{place.storage.key}"
        if entry not in self.zip.namelist():
            raise ArchiveError(f"{self.path}: {name}: {entry} is missing")
        if self.zip.getinfo(entry).file_size != place.storage.count * size:
            raise ArchiveError(f"{self.path}: {name}: {entry} has another size than it says")
        flat = np.frombuffer(self.zip.read(entry), dtype=dtype)
        strides = [step * size for step in place.strides]
        array = np.lib.stride_tricks.as_strided(flat[place.offset :], place.shape, strides)
        if place.storage.kind == "BFloat16Storage":
            return (array.astype(np.uint32) << 16).view(np.float32)
        return array.astype(np.float32) if array.dtype.kind == "f" else array.copy()


def named_tensors(root):
    """The dictionary of tensors at the top, or under a key at the top such as model_state_dict."""
    if not isinstance(root, dict):
        raise ArchiveError(f"it holds a {type(root).__name__}; a dictionary of tensors is needed")
    found = {k: v for k, v in root.items() if isinstance(k, str) and isinstance(v, TensorPlace)}
    for value in root.values():
        if not found and isinstance(value, dict):
            found = {k: v for k, v in value.items() if isinstance(v, TensorPlace)}
    if not found:
        raise ArchiveError("it holds no tensors by name")
    return found
