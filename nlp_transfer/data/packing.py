"""Files as they are, or unpacked; what is neither text nor packed text is recognised by its first bytes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from nlp_transfer.errors import DataError, first_line

PACKINGS: dict[str, tuple[re.Pattern[bytes], Callable[[Path], object]]] = {
    ".gz": (re.compile(rb"\x1f\x8b"), gzip.open),
    ".bz2": (re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"), bz2.open),
    ".xz": (re.compile(rb"\xfd7zXZ\x00"), lzma.open),
}
"""By the usual ending: what such a file begins with, and what opens it."""
OTHER_FORMATS = {
    b"PK\x03\x04": "a zip archive (Excel's sheets are such, too). Unpack it, or save the sheet as csv",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word file. Save the sheet as csv",
    b"\x28\xb5\x2f\xfd": "packed by zstd. Unpack it, or pack it by gzip",
    b"%PDF": "a PDF. Save its text",
    b"PAR1": "a parquet file. Let its name end in .parquet",
    b"7z\xbc\xaf": "a 7z archive. Unpack it",
    b"]\x00\x00": "packed by lzma. Unpack it, or pack it by xz",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself. Fetch it with 'git lfs pull'",
    b"<!DOCTYPE html": "a web page. Download the file itself",
}
BEGINNING = 24
"""Bytes that tell formats apart."""
DECOMPRESSORS: dict[str, Callable[[], Any]] = {".bz2": bz2.BZ2Decompressor, ".xz": lzma.LZMADecompressor}
PART = 2**20
"""Bytes that are unpacked at once."""
DAMAGED = (EOFError, OSError, lzma.LZMAError, zlib.error)


def ending(path: Path) -> str:
    """Of the name without the ending of its packing: ``.csv`` of ``rows.csv.gz``."""
    inner = path.with_suffix("") if path.suffix.lower() in PACKINGS else path
    return inner.suffix.lower()


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file, unpacked if it is packed."""
    with path.open("rb") as plain:
        begins = plain.read(BEGINNING)
    packing = packing_of(begins)
    if packing is None:
        refuse_other_format(begins, path)
        with path.open("rb") as plain:
            yield plain
        return
    try:
        if packing in DECOMPRESSORS:
            refuse_rest(path, packing)
        with cast(BinaryIO, PACKINGS[packing][1](path)) as unpacked:
            inside = cast(io.BufferedReader, unpacked).peek(BEGINNING)
            if packing_of(inside):
                raise DataError(f"{path}: packed twice, by {packing} and {packing_of(inside)}. Unpack it once.")
            refuse_other_format(inside, path)
            yield unpacked
    except DAMAGED as error:
        raise DataError(f"{path}: a damaged or incomplete {packing} file ({first_line(error)}).") from error


def packing_of(begins: bytes) -> str | None:
    return next((end for end, (magic, _) in PACKINGS.items() if magic.match(begins)), None)


def refuse_other_format(begins: bytes, path: Path) -> None:
    for magic, what in OTHER_FORMATS.items():
        if begins.startswith(magic):
            raise DataError(f"{path}: {what}.")


def refuse_rest(path: Path, packing: str) -> None:
    """Raises OSError or LZMAError for what stands after the packed content: bz2 and lzma pass over it in silence."""
    with path.open("rb") as file:
        rest = file.read(PART)
        while rest:
            rest = behind_stream(DECOMPRESSORS[packing](), rest, file).lstrip(b"\0") or file.read(PART)


def behind_stream(unpacker: Any, rest: bytes, file: BinaryIO) -> bytes:
    """What was read of the file beyond the end of one packed stream."""
    while not unpacker.eof:
        if not rest:
            raise EOFError("it ends too early")
        unpacker.decompress(rest)
        rest = unpacker.unused_data if unpacker.eof else file.read(PART)
    return rest
