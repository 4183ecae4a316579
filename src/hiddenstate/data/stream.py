"""Bytes of a text file, decompressed, as UTF-8, with errors that say where."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from hiddenstate.errors import DataError, UsageError

CHUNK_BYTES = 16 << 20
GZIP_MAGIC = b"\x1f\x8b"
BOMS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file for reading, decompressed where it begins as gzip does.

    Raises DataError where there is no such file, or it is a folder, or it is empty.
    """
    try:
        with path.open("rb") as file:
            head = file.read(2)
    except OSError as error:
        raise DataError(
            f"{path} cannot be opened: {error.strerror}.",
            "A file to read was expected there.",
            "Check the path and its rights.",
        ) from None
    if not head:
        raise DataError(
            f"{path} is empty (0 bytes).",
            "A file with something to read was expected.",
            "Export or copy it again.",
        )
    return cast(IO[bytes], gzip.open(path)) if head == GZIP_MAGIC else path.open("rb")


def utf8_chunks(path: Path, encoding: str) -> Iterator[bytes]:
    """Yield the file in chunks as UTF-8 without a byte order mark.

    A UTF-8 file is passed through unchecked: `check_utf8` looks at whole lines later.
    Raises DataError where the bytes cannot be decompressed or decoded, UsageError where Python
    knows no such encoding.
    """
    try:
        codec = codecs.lookup(encoding)
    except LookupError:
        raise UsageError(
            f"There is no encoding {encoding!r}.",
            "Python's names are known, such as utf-8, latin-1, cp1252, utf-16.",
            "Correct --encoding.",
        ) from None
    decoder = None if codec.name in ("utf-8", "utf-8-sig") else codec.incrementaldecoder()
    offset = 0
    with open_bytes(path) as file:
        while chunk := read_chunk(file, path):
            if offset == 0 and decoder is None:
                _refuse_utf16(chunk, path)
                _refuse_binary(chunk, path)
                chunk = chunk.removeprefix(codecs.BOM_UTF8)
            try:
                yield decoder.decode(chunk).encode() if decoder else chunk
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path} is not {encoding}: near byte {offset + error.start:,}, "
                    f"{error.reason}.",
                    f"The encoding {encoding} was asked for.",
                    "Give another --encoding, such as cp1252, latin-1 or utf-16.",
                ) from None
            offset += len(chunk)


def check_utf8(block: bytes, path: Path, offset: int, row: int) -> None:
    """Raise DataError where a block of whole lines is not UTF-8.

    offset, row: of the block's first byte within the file.
    """
    try:
        block.decode()
    except UnicodeDecodeError as error:
        line = row + block.count(b"\n", 0, error.start)
        byte = block[error.start]
        raise DataError(
            f"{path} is not UTF-8: byte 0x{byte:02x} at offset {offset + error.start:,} "
            f"(about row {line}).",
            "Text is read as UTF-8 unless another encoding is given.",
            "Try --encoding cp1252 (Windows, Western Europe) or --encoding latin-1.",
        ) from None


def read_chunk(file: IO[bytes], path: Path) -> bytes:
    """Return the next bytes, b"" at the end; raises DataError where gzip data is damaged."""
    try:
        return file.read(CHUNK_BYTES)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{path} is damaged: {error}.",
            "It begins as a gzip file does, and must decompress to its end.",
            "Copy or export the file again.",
        ) from None


def _refuse_binary(chunk: bytes, path: Path) -> None:
    if b"\0" in chunk[:4096]:
        zipped = " It begins as an Excel file or another zip archive does."
        raise DataError(
            f"{path} is no text: it has zero bytes.{zipped * chunk.startswith(b'PK')}",
            "CSV, JSON lines and plain text are text files.",
            "Export it as CSV, or say with --format what it is.",
        )


def _refuse_utf16(chunk: bytes, path: Path) -> None:
    for mark, name in BOMS.items():
        if chunk.startswith(mark):
            raise DataError(
                f"{path} is not UTF-8: it begins with the byte order mark of {name}.",
                "Text is read as UTF-8 unless another encoding is given.",
                f"Read it with --encoding {name}.",
            )
