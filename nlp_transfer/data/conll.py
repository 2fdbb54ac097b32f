"""Column files: one word and its tag a line, a blank line between sentences."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nlp_transfer.data.examples import Source, TaggedExample
from nlp_transfer.data.lines import numbered_lines
from nlp_transfer.data.notes import Notes
from nlp_transfer.data.rows import Again
from nlp_transfer.errors import DataError

DOCUMENT_START = "-DOCSTART-"
MIN_COLUMNS = 2
RANGE, NUMBER = re.compile(r"\d+[-.]\d+"), re.compile(r"\d+([-.]\d+)?")
COMMENT, TAG = re.compile(r"#\s"), re.compile(r"O|[BIESLU]-\S+")
Rows = list[tuple[int, list[str]]]
"""Numbered lines, split into cells."""
MANY_WORDS = 1000
"""In one sentence: more than anyone speaks."""
TABS, BLANKS = re.compile("\t"), re.compile("[ \t]+")


@dataclass(frozen=True)
class Form:
    """How a column file is built, seen from all of its lines."""

    separator: re.Pattern[str]
    width: int
    """Columns of most lines."""
    counts_words: bool
    """Whether the first column holds numbers."""


def read_conll(path: Path, words_column: str | None, tags_column: str | None, notes: Notes) -> Iterator[TaggedExample]:
    """Tags as the file has them, in any scheme. Columns are counted from 0, from the end when negative.

    Columns are parted by tabs where the file has tabs, else by blanks. Document starts, comments (lines that begin with
    "# " before a sentence) and CoNLL-U's ranges of words (``3-4``) are passed over.
    """
    form = form_of(path, notes)
    words, tags = column_number(words_column, 0), column_number(tags_column, -1)
    counts_words = form.counts_words and form.width > MIN_COLUMNS and words_column != "0"
    if counts_words:
        words = column_number(words_column, 1)
        notes.say(f"{path}: column 0 counts the words; they are read from column {words}.")
    for setting, index in (("words_column", words), ("tags_column", tags)):
        if not -form.width <= index < form.width:
            raise DataError(
                f"{path}: {setting} {index} is outside the file's {form.width} columns, 0 to {form.width - 1}."
            )
    for rows in sentences(path, form.separator, notes):
        if counts_words:
            refuse_miscounted(rows, path)
        own = [row for row in rows if not (counts_words and RANGE.fullmatch(row[1][0]))]
        if own:
            yield sentence(path, own, form.width, words, tags)


def form_of(path: Path, notes: Notes) -> Form:
    """Reads the file twice. Raises DataError where it holds no sentence."""
    content = Again(lambda: without_comments(numbered_lines(path), path, Notes()))
    separator = TABS if any("\t" in line.strip() for _, line in content) else BLANKS
    widths: Counter[int] = Counter()
    num_sentences, num_words, num_numbers = 0, 0, 0
    for rows in sentences(path, separator, Notes()):
        num_sentences += 1
        num_words += len(rows)
        num_numbers += sum(bool(NUMBER.fullmatch(row[0])) for _, row in rows)
        widths.update(len(row) for _, row in rows if len(row) >= MIN_COLUMNS)
    if not num_sentences:
        raise DataError(f"{path} holds no sentence. It needs a word and its tag in every line.")
    if num_sentences == 1 and num_words >= MANY_WORDS:
        notes.say(f"{path} holds one sentence of {num_words:,} words; a blank line would part sentences.")
    width = widths.most_common(1)[0][0] if widths else MIN_COLUMNS
    return Form(separator, width, num_numbers > num_words / 2)


def sentences(path: Path, separator: re.Pattern[str], notes: Notes) -> Iterator[Rows]:
    """The numbered rows of one sentence after the other, split into cells."""
    block: Rows = []
    for number, line in without_comments(numbered_lines(path), path, notes):
        row = split(line, separator)
        if row and row[0] != DOCUMENT_START:
            block.append((number, row))
        elif block:
            yield block
            block = []
    if block:
        yield block


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


def refuse_miscounted(rows: Rows, path: Path) -> None:
    """Raises DataError where the first column does not count the words from 1."""
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
