"""Files of rows: csv, tsv, jsonl, parquet, and `datasets` Hub ids. Every row knows where it stands.

The only module that imports `datasets`, beside the metric made for `evaluate`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet

from nlp_transfer.data.examples import Source
from nlp_transfer.data.folding import fold
from nlp_transfer.data.lines import PACKINGS, ending, numbered_lines
from nlp_transfer.data.notes import Notes
from nlp_transfer.errors import DataError, first_line

HUB_PREFIX = "hub:"
TABLE_FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
MAX_FIELD = 2**31 - 1
"""The csv module's own limit of 131,072 characters refuses long documents."""


@dataclass(frozen=True)
class Table:
    """Rows of named columns."""

    name: str
    """The file, as it was spelled."""
    columns: tuple[str, ...]
    rows: Sequence[tuple[Source, Mapping[str, Any]]]
    label_names: Mapping[str, Sequence[str]]
    """For columns that hold ids (a `datasets` ClassLabel): the names of the ids."""


def read_table(path: Path, header_names: frozenset[str], notes: Notes) -> Table:
    """Raises DataError, with file and line, for what cannot be read as rows of equal columns.

    A csv or tsv file whose first row holds none of ``header_names`` may have no header; see ``name_columns``.
    """
    kind = TABLE_FORMATS.get(ending(path)) or sniff(path)
    if kind == "jsonl":
        return read_jsonl(path)
    if kind == "parquet":
        return read_parquet(path)
    return read_delimited(path, kind, header_names, notes)


def sniff(path: Path) -> str:
    """A file with an unknown ending: JSON lines begin with a brace, tsv rows hold a tab."""
    first = next((line.strip() for _, line in numbered_lines(path) if line.strip()), "")
    if first == "[" or isinstance(json_or_none(first), list):
        raise DataError(f"{path}: a JSON list is not read. Write one object a line (jsonl).")
    if first == "{" or isinstance(json_or_none(first), dict):
        return "jsonl"
    return "tsv" if "\t" in first else "csv"


def json_or_none(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def read_delimited(path: Path, kind: str, header_names: frozenset[str], notes: Notes) -> Table:
    rows = list(split_tsv(path) if kind == "tsv" else split_csv(path, separator_of(path, notes)))
    if not rows:
        raise DataError(f"{path} is empty. It needs a text and a label in every row.")
    columns, body = name_columns(rows, header_names)
    columns, body = without_nameless(columns, body)
    if not body:
        raise DataError(f"{path} is empty below its header ({', '.join(columns)}).")
    if len(set(columns)) < len(columns):
        raise DataError(f"{path}: two columns have the same name ({', '.join(columns)}). Rename one.")
    header = [fold(name) for name in columns]
    for line, row in body:
        if repeats(row, header):
            raise DataError(f"{path}:{line}: the header stands here again. Delete the row.")
        if len(row) != len(columns):
            raise DataError(
                f"{path}:{line}: {len(row)} columns where {len(columns)} are expected ({', '.join(columns)}). "
                + ("Quote texts that hold a comma." if kind == "csv" else "A text must not hold a tab.")
            )
    named = [(Source(str(path), line), dict(zip(columns, row, strict=True))) for line, row in body]
    return Table(str(path), columns, named, {})


def repeats(row: Sequence[str], header: Sequence[str]) -> bool:
    """Whether a row is the folded header again; of most rows this folds one cell only."""
    return len(row) == len(header) and all(fold(cell) == name for cell, name in zip(row, header, strict=True))


def without_nameless(
    columns: tuple[str, ...], body: list[tuple[int, list[str]]]
) -> tuple[tuple[str, ...], list[tuple[int, list[str]]]]:
    """Spreadsheets write columns without a name and without content behind the others."""
    kept = [i for i, name in enumerate(columns) if name or any(len(row) <= i or row[i].strip() for _, row in body)]
    if len(kept) == len(columns):
        return columns, body
    shorter = [(line, [row[i] for i in kept] if len(row) == len(columns) else row) for line, row in body]
    return tuple(columns[i] for i in kept), shorter


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


def name_columns(
    rows: list[tuple[int, list[str]]], header_names: frozenset[str]
) -> tuple[tuple[str, ...], list[tuple[int, list[str]]]]:
    """Take the first row as the header, unless it looks like data.

    It looks like data when it holds none of the usual names, and is the only cell of its row or stands again further
    down in its column, as a label does.
    """
    first = [cell.strip() for cell in rows[0][1]]
    body = rows[1:]
    recurring = [any(cell == row[i].strip() for _, row in body if i < len(row)) for i, cell in enumerate(first)]
    header = [fold(cell) for cell in first]
    stands_again = header_names.issuperset(header) and any(repeats(row, header) for _, row in body)
    known = any(
        cell.casefold() in header_names and (stands_again or not again)
        for cell, again in zip(first, recurring, strict=True)
    )
    if not known and (any(recurring) or len(first) == 1):
        return tuple(f"column{i}" for i in range(1, len(first) + 1)), rows
    return tuple(first), body


def read_jsonl(path: Path) -> Table:
    rows: list[tuple[Source, Mapping[str, Any]]] = []
    for number, line in numbered_lines(path):
        if line.strip():
            rows.append((Source(str(path), number), parse_object(path, number, line)))
    if not rows:
        raise DataError(f"{path} is empty. It needs a JSON object with a text and a label in every line.")
    columns = tuple(dict.fromkeys(key for _, row in rows for key in row))
    return Table(str(path), columns, rows, {})


def parse_object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{number}: no valid JSON ({error.msg} at character {error.colno}).") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; brackets thousands deep
        raise DataError(f"{path}:{number}: no usable JSON ({error}).") from None
    if not isinstance(value, dict):
        raise DataError(f'{path}:{number}: expected an object such as {{"text": ..., "label": ...}}, got {line[:40]}.')
    return value


def read_parquet(path: Path) -> Table:
    if path.suffix.lower() in PACKINGS:
        raise DataError(f"{path}: a parquet file is packed inside already. Unpack it.")
    try:
        table = pyarrow.parquet.read_table(path)
        if len(set(table.column_names)) < len(table.column_names):
            raise DataError(f"{path}: two columns have the same name ({', '.join(table.column_names)}). Rename one.")
        return from_dataset(datasets.Dataset(table), str(path))
    except DataError:
        raise
    except Exception as error:  # damaged content and metadata end in half a dozen types
        raise DataError(f"{path}: cannot be read as a parquet file ({first_line(error)}).") from error


def read_hub(spelling: str) -> dict[str, Table]:
    """The splits of ``hub:org/name[@revision][:config]``, by their names on the Hub."""
    name, _, config = spelling.removeprefix(HUB_PREFIX).partition(":")
    name, _, revision = name.partition("@")
    with quiet_datasets():
        try:
            parts = datasets.load_dataset(name, config or None, revision=revision or None)
        except Exception as error:  # huggingface_hub, fsspec and datasets raise a dozen types here
            raise DataError(
                f"{spelling}: the data set could not be downloaded from the Hub ({first_line(error)}). "
                "Check the spelling and the network, or name files."
            ) from error
    return {str(split): from_dataset(part, f"{spelling}/{split}") for split, part in parts.items()}


@contextmanager
def quiet_datasets() -> Iterator[None]:
    shown = datasets.utils.logging.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def from_dataset(part: Any, name: str) -> Table:
    rows = [(Source(name, number), row) for number, row in enumerate(part, start=1)]
    if not rows:
        raise DataError(f"{name} is empty.")
    return Table(name, tuple(part.column_names), rows, {c: n for c in part.column_names if (n := class_names(part, c))})


def class_names(part: Any, column: str) -> list[str]:
    feature = part.features[column]
    names = getattr(getattr(feature, "feature", feature), "names", None)
    return list(names or [])
