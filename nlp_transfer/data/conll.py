"""Column files: one word and its tag a line, a blank line between sentences."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from nlp_transfer.data.examples import Source, TaggedExample
from nlp_transfer.data.lines import numbered_lines
from nlp_transfer.data.notes import PASSED_OVER, Notes
from nlp_transfer.data.rows import Again
from nlp_transfer.errors import DataError, counted
from nlp_transfer.labels import OUTSIDE

DOCUMENT_START = re.compile(r"-+docstart-*\S*", re.IGNORECASE)
MIN_COLUMNS = 2
RANGE, NUMBER = re.compile(r"\d+[-.]\d+"), re.compile(r"\d+([-.]\d+)?")
COMMENT, TAG = re.compile(r"#\s"), re.compile(r"O|[BIESLU]-\S+")
Rows = list[tuple[int, list[str]]]
"""Numbered lines, split into cells."""
MANY_WORDS = 1000
"""In one sentence: more than anyone speaks."""
LINE_MARK = re.compile("[\v\f\x1c-\x1e\x85\u2028\u2029]")
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
    form = form_of(path)
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
    if words % form.width == tags % form.width:
        raise DataError(f"{path}: column {words} cannot hold both words and tags. Name --words-column, --tags-column.")
    if form.width > MIN_COLUMNS:
        notes.say(f"{path}: words are read from column {words % form.width}, tags from column {tags % form.width}.")
    for rows in sentences(path, form, notes):
        refuse_ragged(rows, path, form.width)
        own = rows
        if counts_words:
            refuse_miscounted(rows, path)
            own = without_ranges(rows, path, tags)
        yield sentence(path, own, words, tags, notes)


def without_ranges(rows: Rows, path: Path, tags: int) -> Rows:
    """The words alone. Raises DataError where a range or an empty node bears a tag, which would be lost."""
    for number, row in rows:
        if RANGE.fullmatch(row[0]) and row[tags] not in (OUTSIDE, "_"):
            raise DataError(
                f"{path}:{number}: {row[0]} is passed over, but bears the tag '{row[tags]}'. Tag the words, "
                "or name the right --tags-column."
            )
    own = [row for row in rows if not RANGE.fullmatch(row[1][0])]
    if not own:
        raise DataError(f"{path}:{rows[0][0]}: a sentence without a word. Delete it.")
    return own


def form_of(path: Path) -> Form:
    """Reads the file three times. Raises DataError where it holds no sentence."""
    lines = Again(lambda: (line for _, line in numbered_lines(path) if line.strip() and not line.startswith("#")))
    separator = TABS if any("\t" in line.strip() for line in lines) else BLANKS
    widths = Counter(width for line in lines if (width := len(split(line, separator))) >= MIN_COLUMNS)
    width = widths.most_common(1)[0][0] if widths else MIN_COLUMNS
    form = Form(separator, width, counts_words=False)
    num_words, num_numbers = 0, 0
    for rows in sentences(path, form, Notes()):
        num_words += len(rows)
        num_numbers += sum(bool(NUMBER.fullmatch(row[0])) for _, row in rows)
    if not num_words:
        raise DataError(f"{path} holds no sentence. It needs a word and its tag in every line.")
    return replace(form, counts_words=num_numbers > num_words / 2)


def sentences(path: Path, form: Form, notes: Notes) -> Iterator[Rows]:
    """The numbered rows of one sentence after the other, split into cells."""
    block: Rows = []
    for number, line in without_comments(numbered_lines(path), path, form.width, notes):
        row = split(line, form.separator)
        if row and not DOCUMENT_START.fullmatch(row[0]):
            block.append((number, row))
        elif block:
            yield block
            block = []
    if block:
        yield block


def without_comments(
    lines: Iterable[tuple[int, str]], path: Path, width: int, notes: Notes
) -> Iterator[tuple[int, str]]:
    """A line is a comment where no sentence has begun, unless it has all columns and a tag in the last: "#" may be a
    word.
    """
    between = True
    for number, line in lines:
        cells = line.split()
        if between and COMMENT.match(line) and not (len(cells) == width and TAG.fullmatch(cells[-1])):
            notes.count(f"Comment lines of {path}, {PASSED_OVER}", Source(str(path), number))
            continue
        between = not cells or bool(DOCUMENT_START.fullmatch(cells[0]))
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
    inner = line.rstrip(" \t") if separator is TABS else line.strip(" \t")
    return [cell.strip(" ") for cell in separator.split(inner)] if inner else []


def refuse_ragged(rows: Rows, path: Path, width: int) -> None:
    for number, row in rows:
        if len(row) != width:
            raise DataError(
                f"{path}:{number}: {counted(len(row), 'column')} where {width} are expected: {' '.join(row)[:60]!r}. "
                "Every line holds a word and its tag, and a blank line parts sentences."
            )


def sentence(path: Path, rows: Rows, words_column: int, tags_column: int, notes: Notes) -> TaggedExample:
    for number, row in rows:
        if not row[words_column]:
            raise DataError(f"{path}:{number}: the word is empty. Delete the line, or write the word.")
        if LINE_MARK.search(row[words_column]):
            notes.count(f"Words of {path} that hold a line separator (U+2028, U+0085)", Source(str(path), number))
    if len(rows) >= MANY_WORDS:
        notes.count(
            f"Sentences of {path} with {MANY_WORDS:,} words or more; a blank line parts sentences",
            Source(str(path), rows[0][0]),
        )
    words = tuple(row[words_column] for _, row in rows)
    tags = tuple(row[tags_column] for _, row in rows)
    lines = tuple(number for number, _ in rows)
    return TaggedExample(words, tags, Source(str(path), lines[0]), lines)
