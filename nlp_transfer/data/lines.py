"""A text file as numbered lines, whatever it is encoded and packed in."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import zip_longest
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
    b"<!DOCTYPE": "a web page. Download the file itself",
    b"<html": "a web page. Download the file itself",
}
BEGINNING = 24
"""Bytes that tell formats apart."""
WIDE_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is its beginning
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
DECOMPRESSORS: dict[str, Callable[[], Any]] = {".bz2": bz2.BZ2Decompressor, ".xz": lzma.LZMADecompressor}
PART = 2**20
"""Bytes that are unpacked at once."""
DAMAGED = (EOFError, OSError, lzma.LZMAError, zlib.error)


def ending(path: Path) -> str:
    """Of the name without the ending of its packing: ``.csv`` of ``rows.csv.gz``."""
    inner = path.with_suffix("") if path.suffix.lower() in PACKINGS else path
    return inner.suffix.lower()


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines without their ends, from 1; only line feeds end a line, with or without a carriage return.

    UTF-8, or UTF-16 and UTF-32 with a byte-order mark; plain, or packed by gzip, bzip2 or xz. Raises DataError, with
    file and line, for anything else.
    """
    with opened(path) as file:
        yield from decoded(file, str(path))


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
    if packing not in DECOMPRESSORS:
        return
    with path.open("rb") as file:
        rest = file.read(PART)
        while rest:
            unpacker = DECOMPRESSORS[packing]()
            while not unpacker.eof:
                if not rest:
                    raise EOFError("it ends too early")
                unpacker.decompress(rest)
                rest = file.read(PART) if not unpacker.eof else unpacker.unused_data
            rest = rest or file.read(PART)


def decoded(file: BinaryIO, name: str) -> Iterator[tuple[int, str]]:
    """The numbered lines of an open file that can be peeked into."""
    begins = cast(io.BufferedReader, file).peek(4)
    wide = next((encoding for mark, encoding in WIDE_MARKS if begins.startswith(mark)), None)
    lines = wide_lines(file, wide, name) if wide else utf8_lines(file, name)
    for number, line in lines:
        if "\0" in line:
            raise DataError(f"{name}:{number}: holds a NUL byte, so it is no text or not UTF-8. Save it as UTF-8.")
        content = line.rstrip("\r\n").removeprefix("\ufeff")  # files that were joined bring their marks along
        if "\r" in content:
            raise DataError(f"{name}:{number}: holds a carriage return. Save it with line feeds ('\\n') as line ends.")
        yield number, content


def utf8_lines(file: BinaryIO, name: str) -> Iterator[tuple[int, str]]:
    for number, raw in enumerate(file, start=1):
        try:
            yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{name}:{number}: not UTF-8 ({error.reason}, byte {raw[error.start]:#04x}); latin-1 or Windows-1252 "
                "perhaps. Save the file as UTF-8, for instance with 'iconv -f windows-1252 -t utf-8'."
            ) from None


def wide_lines(file: BinaryIO, encoding: str, name: str) -> Iterator[tuple[int, str]]:
    raw = file.read()
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        number = raw[: error.start].decode(encoding, "ignore").count("\n") + 1
        raise DataError(f"{name}:{number}: not {encoding.upper()}, as which the file begins. Save it anew.") from None
    yield from enumerate(io.StringIO(text, newline="\n"), start=1)


def zip_lines(first: Path, second: Path) -> Iterator[tuple[int, str, str]]:
    """Line by line through two files of equal length."""
    if not second.is_file():
        raise DataError(f"{second.parent} is a folder without a file '{second.name}'.")
    pairs = zip_longest(numbered_lines(first), numbered_lines(second))
    count = 0
    for count, (left, right) in enumerate(pairs, start=1):
        if left is None or right is None:
            shorter, longer = (first, second) if left is None else (second, first)
            raise DataError(
                f"{shorter} has {count - 1} lines and {longer} more; they must go line by line, and {longer}:{count} "
                "has no partner."
            )
        yield count, left[1], right[1]
    if not count:
        raise DataError(f"{first} is empty.")
