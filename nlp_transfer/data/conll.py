"""Column files: one word and its tag a line, a blank line between sentences."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from nlp_transfer.data.examples import Source, TaggedExample
from nlp_transfer.data.lines import numbered_lines
from nlp_transfer.data.notes import Notes
from nlp_transfer.errors import DataError

DOCUMENT_START = "-DOCSTART-"
MIN_COLUMNS = 2
RANGE, NUMBER = re.compile(r"\d+[-.]\d+"), re.compile(r"\d+([-.]\d+)?")
COMMENT, TAG = re.compile(r"#\s"), re.compile(r"O|[BIESLU]-\S+")
Rows = list[tuple[int, list[str]]]
"""Numbered lines, split into cells."""
TABS, BLANKS = re.compile("\t"), re.compile("[ \t]+")


def read_conll(path: Path, words_column: str | None, tags_column: str | None, notes: Notes) -> list[TaggedExample]:
    """Tags as the file has them, in any scheme. Columns are counted from 0, from the end when negative.

    Columns are parted by tabs where the file has tabs, else by blanks. Document starts, comments (lines that begin with
    "# " before a sentence) and CoNLL-U's ranges of words (``3-4``) are passed over.
    """
    numbered = list(without_comments(numbered_lines(path), path, notes))
    separator = TABS if any("\t" in line.strip() for _, line in numbered) else BLANKS
    lines = [(number, split(line, separator)) for number, line in numbered]
    widths = Counter(len(row) for _, row in lines if len(row) >= MIN_COLUMNS)
    width = widths.most_common(1)[0][0] if widths else MIN_COLUMNS
    sentences = [rows for rows in blocks(lines) if rows]
    if not sentences:
        raise DataError(f"{path} holds no sentence. It needs a word and its tag in every line.")
    words, tags = column_number(words_column, 0), column_number(tags_column, -1)
    if width > MIN_COLUMNS and words_column != "0" and mostly_numbers(sentences):
        refuse_miscounted(sentences, path)
        words = column_number(words_column, 1)
        notes.say(f"{path}: column 0 counts the words; they are read from column {words}.")
        sentences = [[row for row in rows if row[1][0].isdecimal()] for rows in sentences]
    for setting, index in (("words_column", words), ("tags_column", tags)):
        if not -width <= index < width:
            raise DataError(f"{path}: {setting} {index} is outside the file's {width} columns, 0 to {width - 1}.")
    return [sentence(path, rows, width, words, tags) for rows in sentences]


def without_comments(lines: Iterable[tuple[int, str]], path: Path, notes: Notes) -> Iterator[tuple[int, str]]:
    """A line is a comment where no sentence has begun, unless its last cell is a tag: "#" may be a word."""
    between = True
    for number, line in lines:
        cells = line.split()
        if between and COMMENT.match(line) and not (len(cells) > 1 and TAG.fullmatch(cells[-1])):
            notes.count(f"Comment lines of {path}, passed over", Source(str(path), number))
            continue
        between = not cells or cells[0] == DOCUMENT_START
        yield number, line


def column_number(value: str | None, default: int) -> int:
    if value is None:
        return default
    if not value.removeprefix("-").isdecimal():
        raise DataError(f"CoNLL files have no column names: got '{value}', expected a number such as 0 or -1.")
    return int(value)


def mostly_numbers(sentences: Sequence[Rows]) -> bool:
    first = [row[0] for rows in sentences for _, row in rows]
    return sum(bool(NUMBER.fullmatch(cell)) for cell in first) > len(first) / 2


def refuse_miscounted(sentences: Sequence[Rows], path: Path) -> None:
    """Raises DataError where the first column does not count the words from 1."""
    for rows in sentences:
        expected = 1
        for number, row in rows:
            if row[0].isdecimal() and int(row[0]) == expected:
                expected += 1
            elif not RANGE.fullmatch(row[0]):
                raise DataError(
                    f"{path}:{number}: column 0 counts the words of a sentence, but is '{row[0]}' where {expected} is "
                    "expected. Correct it, or say with --words-column where the words are."
                )


def split(line: str, separator: re.Pattern[str]) -> list[str]:
    """Only blanks and tabs part columns: a word may hold a no-break space."""
    inner = line.strip(" \t")
    return [cell.strip(" ") for cell in separator.split(inner)] if inner else []


def blocks(lines: Sequence[tuple[int, list[str]]]) -> Iterator[Rows]:
    """The numbered rows of one sentence after the other."""
    block: Rows = []
    for number, row in lines:
        if not row or row[0] == DOCUMENT_START:
            yield block
            block = []
        else:
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
    lines = tuple(number for number, _ in rows)
    return TaggedExample(words, tags, Source(str(path), lines[0]), lines)
