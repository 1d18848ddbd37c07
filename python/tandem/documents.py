"""Documents from .txt (a file is a document) and .jsonl (a record's `text`), also .gz, .xz, .zst.

Streams: one document and one block of bytes are in memory. Whatever is wrong with a file is a
message that names the file, the line or byte, what stands there and what is needed.
"""

import gzip
import json
import lzma
import zlib

BLOCK_BYTES = 1 << 20
MAX_DOCUMENT_BYTES = 1 << 30
KINDS = (".txt", ".jsonl")
COMPRESSIONS = (".gz", ".xz", ".zst")
ALLOWED = "must end in .txt or .jsonl, or one of these with .gz, .xz or .zst"


class BadDocument(Exception):
    """One document that cannot be used; reading can go on behind it."""


class BadFile(Exception):
    """The rest of the file cannot be read."""


def split_name(path):
    """('.jsonl', '.xz') for 'a/b.jsonl.xz'. Raises BadFile for other endings."""
    name, compression = path, ""
    for ending in COMPRESSIONS:
        if path.endswith(ending):
            name, compression = path[: -len(ending)], ending
    for kind in KINDS:
        if name.endswith(kind):
            return kind, compression
    raise BadFile(f"{path} has an unknown ending; {ALLOWED}")


def read_documents(path):
    """Yields ('document', text) or ('bad', message). Raises BadFile."""
    kind, compression = split_name(path)
    blocks = guarded_blocks(path, compression)
    if kind == ".txt":
        yield from text_document(path, blocks)
    else:
        yield from json_documents(path, blocks)


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
    yield "document", text


def json_documents(path, blocks):
    for number, line in numbered_lines(path, blocks):
        try:
            yield "document", text_of_record(line)
        except BadDocument as problem:
            yield "bad", f"{path}, line {number}: {problem}"


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


def text_of_record(line):
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise BadDocument(
            f"not UTF-8: byte {error.start} of the line is 0x{line[error.start]:02x}; "
            "convert it to UTF-8"
        ) from error
    except (ValueError, RecursionError) as error:
        raise BadDocument(f"not JSON ({error}); each line must be an object with `text`") from error
    if not isinstance(record, dict):
        raise BadDocument(f"a JSON {json_name(record)}; each line must be an object with `text`")
    if "text" not in record:
        keys = ", ".join(sorted(record)[:8]) or "no keys"
        raise BadDocument(
            f"the record has {keys}; it needs `text` "
            "(instruction and chat records are not read yet)"
        )
    text = record["text"]
    if not isinstance(text, str):
        raise BadDocument(f"`text` is a JSON {json_name(text)}; it must be a string")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadDocument(
            f"`text` holds half a surrogate pair at character {error.start}; remove it"
        ) from error
    return text


def json_name(value):
    names = {dict: "object", list: "list", str: "string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "number")
