"""A text file as numbered lines, whatever it is encoded and packed in."""

from __future__ import annotations

import codecs
import io
import json
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO, cast

from nlp_transfer.data.packing import opened
from nlp_transfer.errors import DataError

WIDE_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is its beginning
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines without their ends, from 1; only line feeds end a line, with or without a carriage return.

    UTF-8, or UTF-16 and UTF-32 with a byte-order mark; plain, or packed by gzip, bzip2 or xz. Raises DataError, with
    file and line, for anything else.
    """
    with opened(path) as file:
        yield from decoded(file, str(path))


def first_line_of(path: Path) -> tuple[int, str]:
    """The first line that is not blank, with its number; of an empty file, nothing on line 1."""
    return next(((number, line) for number, line in numbered_lines(path) if line.strip()), (1, ""))


def json_or_none(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


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
            raise DataError(
                f"{name}:{number}: holds a carriage return. Save it with line feeds ('\\n') as line ends, or, where it "
                "stands inside a text, delete it, for instance with 'tr -d \\r'."
            )
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
