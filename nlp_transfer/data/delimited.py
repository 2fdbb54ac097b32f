"""Tables in csv and tsv files, with and without a header."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from nlp_transfer.data.examples import Source
from nlp_transfer.data.folding import fold
from nlp_transfer.data.lines import numbered_lines
from nlp_transfer.data.notes import Notes
from nlp_transfer.data.rows import Again, Row, Table
from nlp_transfer.errors import DataError

MAX_FIELD = 2**31 - 1
"""The csv module's own limit of 131,072 characters refuses long documents."""
NumberedCells = tuple[int, list[str]]


def read_delimited(path: Path, kind: str, header_names: frozenset[str], notes: Notes) -> Table:
    separator = "\t" if kind == "tsv" else separator_of(path, notes)
    rows = Again(lambda: split_tsv(path) if kind == "tsv" else split_csv(path, separator))
    seen = survey(rows)
    if seen is None:
        raise DataError(f"{path} is empty. It needs a text and a label in every row.")
    has_header = is_header(seen, header_names)
    names = seen.first if has_header else [f"column{i}" for i in range(1, len(seen.first) + 1)]
    if has_header and not seen.num_below:
        raise DataError(f"{path} is empty below its header ({', '.join(names)}).")
    # spreadsheets write columns without a name and without content behind the others
    kept = [i for i, name in enumerate(names) if name or seen.filled[i]]
    columns = tuple(names[i] for i in kept)
    if len(set(columns)) < len(columns):
        raise DataError(f"{path}: two columns have the same name ({', '.join(columns)}). Rename one.")
    body = Again(lambda: delimited_rows(path, kind, rows, names, kept, has_header=has_header))
    return Table(str(path), columns, body, {})


def delimited_rows(
    path: Path, kind: str, rows: Iterable[NumberedCells], names: Sequence[str], kept: Sequence[int], *, has_header: bool
) -> Iterator[Row]:
    header = [fold(name) for name in names]
    for line, row in islice(rows, int(has_header), None):
        if repeats(row, header):
            raise DataError(f"{path}:{line}: the header stands here again. Delete the row.")
        if len(row) != len(names):
            raise DataError(
                f"{path}:{line}: {len(row)} columns where {len(names)} are expected ({', '.join(names)}). "
                + ("Quote texts that hold a comma." if kind == "csv" else "A text must not hold a tab.")
            )
        yield Source(str(path), line), {names[i]: row[i] for i in kept}


def repeats(row: Sequence[str], header: Sequence[str]) -> bool:
    """Whether a row is the folded header again; of most rows this folds one cell only."""
    return len(row) == len(header) and all(fold(cell) == name for cell, name in zip(row, header, strict=True))


@dataclass
class Survey:
    """What tells whether the first row is a header, seen from all rows."""

    first: list[str]
    num_below: int
    recurring: list[bool]
    """Whether a cell of the first row stands again further down in its column."""
    is_repeated: bool
    """Whether the first row stands again."""
    filled: list[bool]
    """Whether a column holds something below the first row."""


def survey(rows: Iterable[NumberedCells]) -> Survey | None:
    """None where there is no row."""
    waiting = iter(rows)
    _, first = next(waiting, (0, []))
    if not first:
        return None
    first = [cell.strip() for cell in first]
    folded = [fold(cell) for cell in first]
    seen = Survey(first, 0, [False] * len(first), False, [False] * len(first))
    for _, row in waiting:
        seen.num_below += 1
        seen.is_repeated = seen.is_repeated or repeats(row, folded)
        for i, cell in enumerate(first):
            if i >= len(row):
                seen.filled[i] = True  # a short row is an error that is told with its line
                continue
            seen.filled[i] = seen.filled[i] or bool(row[i].strip())
            seen.recurring[i] = seen.recurring[i] or (cell == row[i].strip())
    return seen


def split_tsv(path: Path) -> Iterator[tuple[int, list[str]]]:
    """A tsv file has no quoting: a quotation mark is a character like any other."""
    for number, line in numbered_lines(path):
        if line.strip(" "):
            yield number, line.split("\t")


def separator_of(path: Path, notes: Notes) -> str:
    """A comma; a semicolon or a tab where the first line has one and no comma, as some programs write csv."""
    first = next((line for _, line in numbered_lines(path) if line.strip()), "")
    other = next((mark for mark in ";\t" if mark in first), None)
    if other is None or "," in first:
        return ","
    notes.say(f"{path}: columns are parted by {'semicolons' if other == ';' else 'tabs'}.")
    return other


def split_csv(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(MAX_FIELD)
    lines = (line + "\n" for _, line in numbered_lines(path))
    reader = csv.reader(lines, delimiter=separator, strict=True)
    start = 1
    try:
        for row in reader:
            if len(row) > 1 or "".join(row).strip():
                yield start, row
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}:{start}: {error}. A quotation mark inside a quoted text is written twice; a tsv or jsonl file "
            "needs no quoting."
        ) from None


def is_header(seen: Survey, header_names: frozenset[str]) -> bool:
    """The first row is the header, unless it looks like data.

    It looks like data when it holds none of the usual names, and is the only cell of its row or stands again further
    down in its column, as a label does.
    """
    stands_again = seen.is_repeated and header_names.issuperset(map(fold, seen.first))
    known = any(
        cell.casefold() in header_names and (stands_again or not again)
        for cell, again in zip(seen.first, seen.recurring, strict=True)
    )
    return known or not (any(seen.recurring) or len(seen.first) == 1)
