"""Column files: one word and its tag a line, a blank line between sentences."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from nlp_transfer.data.examples import Source, TaggedExample
from nlp_transfer.data.lines import numbered_lines
from nlp_transfer.data.notes import Notes
from nlp_transfer.errors import DataError

DOCUMENT_START = "-DOCSTART-"
MIN_COLUMNS = 2
RANGE = re.compile(r"\d+[-.]\d+")
TABS, BLANKS = re.compile("\t"), re.compile("[ \t]+")


def read_conll(path: Path, words_column: str | None, tags_column: str | None, notes: Notes) -> list[TaggedExample]:
    """Tags as the file has them, in any scheme. Columns are counted from 0, from the end when negative.

    Columns are parted by tabs where the file has tabs, else by blanks. Document starts and comment lines (``# ...``
    with another number of columns than the words have) are passed over, and so are CoNLL-U's ranges of words (``3-4``).
    """
    numbered = list(numbered_lines(path))
    separator = TABS if any("\t" in line.strip() for _, line in numbered) else BLANKS
    lines = [(number, split(line, separator)) for number, line in numbered]
    widths = Counter(len(row) for _, row in lines if len(row) >= MIN_COLUMNS)
    width = widths.most_common(1)[0][0] if widths else MIN_COLUMNS
    sentences = [rows for rows in blocks(lines, width) if rows]
    if not sentences:
        raise DataError(f"{path} holds no sentence. It needs a word and its tag in every line.")
    words, tags = column_number(words_column, 0), column_number(tags_column, -1)
    if words_column is None and width > MIN_COLUMNS and all(map(is_counted, sentences)):
        words = 1
        notes.say(f"{path}: column 0 counts the words; they are read from column 1.")
        sentences = [[row for row in rows if row[1][0].isdecimal()] for rows in sentences]
    for setting, index in (("words_column", words), ("tags_column", tags)):
        if not -width <= index < width:
            raise DataError(f"{path}: {setting} {index} is outside the file's {width} columns, 0 to {width - 1}.")
    return [sentence(path, rows, width, words, tags) for rows in sentences]


def column_number(value: str | None, default: int) -> int:
    if value is None:
        return default
    if not value.removeprefix("-").isdecimal():
        raise DataError(f"CoNLL files have no column names: got '{value}', expected a number such as 0 or -1.")
    return int(value)


def is_counted(rows: Sequence[tuple[int, list[str]]]) -> bool:
    """Whether the first column counts the words from 1, with ranges (``3-4``) and empty nodes (``8.1``) between."""
    numbers = [row[0] for _, row in rows]
    counted = [number for number in numbers if number.isdecimal()]
    others = [number for number in numbers if not number.isdecimal()]
    return counted == [str(i + 1) for i in range(len(counted))] and all(RANGE.fullmatch(number) for number in others)


def split(line: str, separator: re.Pattern[str]) -> list[str]:
    """Only blanks and tabs part columns: a word may hold a no-break space."""
    inner = line.strip(" \t")
    return [cell.strip(" ") for cell in separator.split(inner)] if inner else []


def blocks(lines: list[tuple[int, list[str]]], width: int) -> Iterator[list[tuple[int, list[str]]]]:
    """The numbered rows of one sentence after the other."""
    block: list[tuple[int, list[str]]] = []
    for number, row in lines:
        is_comment = bool(row) and row[0].startswith("#") and len(row) != width
        if not row or row[0] == DOCUMENT_START:
            yield block
            block = []
        elif not is_comment:
            block.append((number, row))
    yield block


def sentence(
    path: Path, rows: Sequence[tuple[int, list[str]]], width: int, words_column: int, tags_column: int
) -> TaggedExample:
    for number, row in rows:
        if len(row) != width:
            raise DataError(
                f"{path}:{number}: {len(row)} columns where {width} are expected: {' '.join(row)[:60]!r}. "
                "Every line holds a word and its tag, and a blank line parts sentences."
            )
    words = tuple(row[words_column] for _, row in rows)
    tags = tuple(row[tags_column] for _, row in rows)
    return TaggedExample(words, tags, Source(str(path), rows[0][0]))
