"""Tables in csv and tsv files, with and without a header."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from nlp_transfer.data.cells import QUOTES
from nlp_transfer.data.examples import Source
from nlp_transfer.data.folding import fold
from nlp_transfer.data.lines import first_line_of, json_or_none, numbered_lines
from nlp_transfer.data.notes import Notes
from nlp_transfer.data.rows import Again, Row, Table
from nlp_transfer.errors import DataError, counted, quoted

MAX_FIELD = 2**31 - 1
"""The csv module's own limit of 131,072 characters refuses long documents."""
MAX_SHOWN = 60
LONGEST_NAME = 20
"""Of the names that columns usually have."""
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
NAMED_SEPARATOR = re.compile(r"\ufeff?sep=(.)", re.IGNORECASE)
"""What Excel reads, and writes, above the header."""
ROWS_LOOKED_AT = 200
NumberedCells = tuple[int, list[str]]


def read_delimited(path: Path, kind: str, header_names: frozenset[str], notes: Notes) -> Table:
    refuse_other_content(path)
    separator = "\t" if kind == "tsv" else separator_of(path, header_names, notes)
    rows = Again(lambda: split_tsv(path) if kind == "tsv" else split_csv(path, separator))
    seen = survey(rows, path, header_names, notes)
    if seen is None:
        raise DataError(f"{path} is empty. It needs a text and a label in every row.")
    has_header = is_header(seen, header_names)
    names = seen.first if has_header else [f"column{i}" for i in range(1, len(seen.first) + 1)]
    if has_header and not seen.num_below:
        raise DataError(f"{path} is empty below its header ({quoted(names)}).")
    if not (has_header and header_names & set(map(str.casefold, names))):
        what = "its first row is taken as the header" if has_header else "taken to have no header; the first row is"
        notes.say(f"{path}: {what}: {quoted([name[:MAX_SHOWN] for name in seen.first])}.")
    # spreadsheets write columns without a name and without content behind the others
    kept = [i for i, name in enumerate(names) if name or seen.filled[i]]
    columns = tuple(names[i] for i in kept)
    if len(set(columns)) < len(columns):
        raise DataError(f"{path}: two columns have the same name ({quoted(columns)}). Rename one.")
    body = Again(lambda: delimited_rows(path, kind, rows, names, kept, header_names, has_header=has_header))
    return Table(str(path), columns, body, {})


def delimited_rows(
    path: Path,
    kind: str,
    rows: Iterable[NumberedCells],
    names: Sequence[str],
    kept: Sequence[int],
    usual: frozenset[str],
    *,
    has_header: bool,
) -> Iterator[Row]:
    header = [fold(name) for name in names]
    for line, row in islice(rows, int(has_header), None):
        if repeats(row, header):
            raise DataError(f"{path}:{line}: the header stands here again. Delete the row.")
        if len(row) > 1 and fold(row[0]) in usual and is_second_header(list(map(fold, row)), header, usual):
            raise DataError(f"{path}:{line}: looks like a header ({quoted(row)}). Delete the row, or what is above it.")
        if len(row) != len(names):
            hint = "Is this line a part of the one before?"
            if len(row) > len(names):
                hint = "Quote texts that hold a comma." if kind == "csv" else "A text must not hold a tab."
            raise DataError(
                f"{path}:{line}: {counted(len(row), 'column')} where {len(names)} are expected ({quoted(names)}). "
                + hint
            )
        yield Source(str(path), line), {names[i]: row[i] for i in kept}


def is_second_header(row: list[str], header: list[str], usual: frozenset[str]) -> bool:
    """The header in another order, or all usual names below a first row that holds none."""
    return sorted(row) == sorted(header) or (not usual & set(header) and are_usual(row, usual))


def are_usual(row: Sequence[str], usual: frozenset[str]) -> bool:
    """Whether all cells are names that columns usually have, each another one."""
    return len(set(row)) == len(row) > 1 and usual.issuperset(row)


def refuse_other_content(path: Path) -> None:
    first = first_line_of(path)[1].strip()
    if isinstance(json_or_none(first), dict):
        raise DataError(f"{path} holds JSON lines. Let its name end in .jsonl.")
    if first.startswith("__label__"):
        raise DataError(f"{path} is in fastText's format, which is not read. Write it as csv: text,label.")


def count_oddities(cell: str, source: Source, notes: Notes) -> None:
    """What is no error, and yet often not meant."""
    if "\n" in cell:
        notes.count(f"Texts of {source.file} that go over several lines between quotation marks", source)
    if cell.startswith("="):
        notes.count(f"Cells of {source.file} that are a spreadsheet's formulas", source)
    bare = cell.strip()
    if len(bare) > 1 and bare[0] in QUOTES and bare[-1] in QUOTES:
        notes.count(f"Cells of {source.file} with quotation marks that are read as part of them", source)


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


def survey(rows: Iterable[NumberedCells], path: Path, header_names: frozenset[str], notes: Notes) -> Survey | None:
    """None where there is no row. What looks odd is counted."""
    waiting = iter(rows)
    line, first = next(waiting, (0, []))
    if not first:
        return None
    for cell in first:
        count_oddities(cell, Source(str(path), line), notes)
    first = [cell.strip() for cell in first]
    folded = [fold(cell) for cell in first]
    seen = Survey(first, 0, [False] * len(first), False, [False] * len(first))
    for line, row in waiting:
        seen.num_below += 1
        seen.is_repeated = seen.is_repeated or repeats(row, folded)
        if len(row[0]) <= LONGEST_NAME and are_usual(list(map(fold, row)), header_names):
            notes.count(f"Rows of {path} that look like a header", Source(str(path), line))
        for i, cell in enumerate(first):
            if i >= len(row):
                seen.filled[i] = True  # a short row is an error that is told with its line
                continue
            seen.filled[i] = seen.filled[i] or bool(row[i].strip())
            seen.recurring[i] = seen.recurring[i] or (cell == row[i].strip())
            count_oddities(row[i], Source(str(path), line), notes)
    return seen


def split_tsv(path: Path) -> Iterator[tuple[int, list[str]]]:
    """A tsv file has no quoting: a quotation mark is a character like any other."""
    for number, line in numbered_lines(path):
        if line.strip(" "):
            yield number, line.split("\t")


def separator_of(path: Path, header_names: frozenset[str], notes: Notes) -> str:
    """A comma, or the other mark that parts the rows evenly. Raises DataError where two fit alike.

    A line ``sep=;`` above the header decides; else the mark whose first row holds a usual name does.
    """
    number, first = first_line_of(path)
    if number == 1 and (named := NAMED_SEPARATOR.fullmatch(first)):
        notes.say(f"{path}: columns are parted by {named[1]!r}, as its first line says.")
        return named[1]
    found = [mark for mark in SEPARATORS if mark in first] or [","]
    if len(found) > 1:
        found = [mark for mark in found if parts_evenly(path, mark)] or found[:1]
    usual = [mark for mark in found if header_names & {fold(cell) for cell in first.split(mark)}]
    if len(usual or found) > 1:
        names = " and ".join(SEPARATORS[mark] for mark in (usual or found)[:2])
        raise DataError(f"{path}: {names} both part its rows evenly. Put 'sep=,' or the like into a line at its top.")
    [separator] = usual or found
    if separator != ",":
        notes.say(f"{path}: columns are parted by {SEPARATORS[separator]}.")
    return separator


def parts_evenly(path: Path, separator: str) -> bool:
    """Whether the first rows have equally many cells, and more than one."""
    try:
        widths = {len(row) for _, row in islice(split_csv(path, separator), ROWS_LOOKED_AT)}
    except DataError:
        return False
    return len(widths) == 1 and widths != {1}


def split_csv(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(MAX_FIELD)
    numbered = numbered_lines(path)
    lines = ("\n" if number == 1 and NAMED_SEPARATOR.fullmatch(line) else line + "\n" for number, line in numbered)
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
