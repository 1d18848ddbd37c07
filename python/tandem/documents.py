"""Documents of a source: text and JSONL (both also .gz, .xz, .zst), Parquet, Arrow, token shards.

    a.txt           one document                    a.parquet, a.arrow    a record per row
    a.jsonl         a record per line               folder/               save_to_disk of `datasets`
    a.bin           the documents of a token shard: a.idx beside it, and a manifest.json that names
                    the model's own tokenizer (as every job's tokens have)
    a.jsonl[0:200]  rows 0 ... 199 of it (either end may be left out), of any kind but .txt

What a record says: record_forms.py. Streams: one document and one block of bytes are in memory.
Whatever is wrong with a file is a message that names the file, the line or byte, what stands there
and what is needed.
"""

import gzip
import lzma
import os
import re
import zlib
from typing import NamedTuple

from tandem.columnar import columnar_records, folder_files
from tandem.record_forms import Document, RecordForms
from tandem.token_shards import shard_documents, shard_files
from tandem.violations import BadDocument, BadFile

BLOCK_BYTES = 1 << 20
MAX_DOCUMENT_BYTES = 1 << 30
KINDS = (".txt", ".jsonl", ".parquet", ".arrow", ".bin")
COMPRESSIONS = (".gz", ".xz", ".zst")
PACKED_KINDS = (".txt", ".jsonl")
ALLOWED = (
    "must end in .txt or .jsonl, or one of these with .gz, .xz or .zst, or in .parquet, .arrow or "
    ".bin (a token shard), or be a save_to_disk folder"
)
ROWS = re.compile(r"^(.*[^\[\]])\[(\d*):(\d*)\]$")


class Source(NamedTuple):
    """A source as data.train names it. end None: to the last row."""

    path: str
    kind: str
    compression: str = ""
    begin: int = 0
    end: int | None = None

    @property
    def sliced(self):
        return self.begin != 0 or self.end is not None

    def files(self):
        """All files that its content depends on. Raises BadFile."""
        if self.kind == ".bin":
            return shard_files(self.path[: -len(".bin")])
        return folder_files(self.path) if self.kind == "folder" else [self.path]


def source_of(name):
    """Raises BadFile for other endings."""
    path, begin, end = name, 0, None
    rows = None if os.path.exists(name) else ROWS.match(name)
    if rows:
        path, begin = rows[1], int(rows[2] or 0)
        end = int(rows[3]) if rows[3] else None
        if end is not None and end <= begin:
            raise BadFile(f"{name} names no row: the second number must be above the first")
    if os.path.isdir(path):
        return Source(path, "folder", "", begin, end)
    kind, compression = split_name(path)
    if rows and kind == ".txt":
        raise BadFile(f"{name}: a .txt is one document and has no rows; leave the numbers out")
    return Source(path, kind, compression, begin, end)


def split_name(path):
    """('.jsonl', '.xz') for 'a/b.jsonl.xz'. Raises BadFile for other endings."""
    name, compression = path, ""
    for ending in COMPRESSIONS:
        if path.endswith(ending):
            name, compression = path[: -len(ending)], ending
    for kind in KINDS:
        if name.endswith(kind) and (not compression or kind in PACKED_KINDS):
            return kind, compression
    if path.endswith("]") and "[" in path:
        raise BadFile(f"{path}: rows are named as [begin:end], two whole numbers or one of them")
    hint = "; a list of records becomes .jsonl by `jq -c '.[]'`" if path.endswith(".json") else ""
    raise BadFile(f"{path} has an unknown ending; {ALLOWED}{hint}")


def read_documents(name, forms=None):
    """Yields ('document', Document) or ('bad', message), a pair per row. Raises BadFile."""
    source, forms = source_of(name), forms or RecordForms()
    found = documents_of_kind(source, forms)
    if not source.sliced:
        yield from found
        return
    for row, pair in enumerate(found):
        if source.end is not None and row >= source.end:
            return
        if row >= source.begin:
            yield pair


def documents_of_kind(source, forms):
    if source.kind == ".txt":
        yield from text_document(source.path, guarded_blocks(source.path, source.compression))
    elif source.kind == ".jsonl":
        blocks = guarded_blocks(source.path, source.compression)
        for number, line in numbered_lines(source.path, blocks):
            yield checked(f"{source.path}, line {number}", lambda: forms.document_of_line(line))
    elif source.kind == ".bin":
        shard = shard_documents(source.path[: -len(".bin")], forms.tokenizer)
        for ids, labels in shard:
            yield "document", Document((), True, (ids, None if forms.train_on_prompt else labels))
    else:
        records = columnar_records(source.path, source.kind, forms.columns())
        for row, record in enumerate(records):
            present = {key: value for key, value in record.items() if value is not None}
            yield checked(f"{source.path}, row {row}", lambda: forms.document(present))


def checked(where, make):
    try:
        return "document", make()
    except BadDocument as problem:
        return "bad", f"{where}: {problem}"


def guarded_blocks(path, compression):
    """Decompressed blocks of bytes; every way in which that fails is a BadFile."""
    try:
        with open(path, "rb") as file:
            yield from OPENERS[compression](file)
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile, ZstandardBroken) as error:
        raise BadFile(
            f"{path} is damaged or cut short ({error}); compress it again from the original"
        ) from error
    except OSError as error:
        raise BadFile(f"{path} cannot be read: {error.strerror or error}") from error


class ZstandardBroken(Exception):
    pass


def plain_blocks(file):
    while block := file.read(BLOCK_BYTES):
        yield block


def zstandard_blocks(file):
    """All frames. The library's own stream reader takes a cut file for a whole one."""
    import zstandard

    decompressor, finished = None, True
    try:
        for block in plain_blocks(file):
            while block:
                if decompressor is None:
                    decompressor = zstandard.ZstdDecompressor().decompressobj()
                yield decompressor.decompress(block)
                finished, block = decompressor.eof, decompressor.unused_data
                if finished:
                    decompressor = None
    except zstandard.ZstdError as error:
        raise ZstandardBroken(error) from error
    if not finished:
        raise ZstandardBroken("the last frame has no end")


OPENERS = {
    "": plain_blocks,
    ".gz": lambda file: plain_blocks(gzip.GzipFile(fileobj=file)),
    ".xz": lambda file: plain_blocks(lzma.LZMAFile(file)),
    ".zst": zstandard_blocks,
}


def text_document(path, blocks):
    content = bytearray()
    for block in blocks:
        content += block
        if len(content) > MAX_DOCUMENT_BYTES:
            raise BadFile(
                f"{path} has more than 1 GiB; a .txt is one document: split it, or use .jsonl"
            )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadFile(
            f"{path} is not UTF-8: byte {error.start} is 0x{content[error.start]:02x}; "
            "convert it to UTF-8"
        ) from error
    yield "document", Document(((text, True),))


def numbered_lines(path, blocks):
    """(line number from 1, bytes) of the lines that are not blank."""
    number, rest = 1, b""
    for block in blocks:
        lines = (rest + block).split(b"\n")
        rest = lines.pop()
        for line in lines:
            if line.strip():
                yield number, line
            number += 1
        if len(rest) > MAX_DOCUMENT_BYTES:
            raise BadFile(f"{path}, line {number} has more than 1 GiB; split the record")
    if rest.strip():
        yield number, rest
