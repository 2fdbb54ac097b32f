"""Files of rows: csv, tsv, jsonl, parquet, and `datasets` Hub ids.

The only module that imports `datasets`, beside the metric made for `evaluate`, and only where it is needed: it takes
half a second.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from nlp_transfer.data.delimited import read_delimited
from nlp_transfer.data.examples import Source
from nlp_transfer.data.lines import first_line_of, json_or_none, numbered_lines
from nlp_transfer.data.notes import Notes
from nlp_transfer.data.packing import PACKINGS, ending
from nlp_transfer.data.rows import Again, Row, Table
from nlp_transfer.errors import DataError, first_line

HUB_PREFIX = "hub:"
TABLE_FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
A_LIST = "a JSON list is not read. Write one object a line (jsonl), for instance with \"jq -c '.[]'\"."
BATCH_ROWS = 1024


def read_table(path: Path, header_names: frozenset[str], notes: Notes) -> Table:
    """Raises DataError, with file and line, for what cannot be read as rows of equal columns.

    A csv or tsv file whose first row holds none of ``header_names`` may have no header; see ``is_header``.
    """
    kind = TABLE_FORMATS.get(ending(path)) or sniff(path)
    if kind == "jsonl":
        return read_jsonl(path)
    if kind == "parquet":
        return read_parquet(path)
    return read_delimited(path, kind, header_names, notes)


def sniff(path: Path) -> str:
    """A file with an unknown ending: JSON lines begin with a brace, tsv rows hold a tab."""
    first = first_line_of(path)[1].strip()
    if first == "[" or isinstance(json_or_none(first), list):
        raise DataError(f"{path}: {A_LIST}")
    if first == "{" or isinstance(json_or_none(first), dict):
        return "jsonl"
    return "tsv" if "\t" in first else "csv"


def read_jsonl(path: Path) -> Table:
    rows = Again(lambda: objects(path))
    columns: dict[str, None] = {}
    is_empty = True
    for _, row in rows:
        is_empty = False
        if not row.keys() <= columns.keys():
            columns |= dict.fromkeys(row)
    if is_empty:
        raise DataError(f"{path} is empty. It needs a JSON object with a text and a label in every line.")
    return Table(str(path), tuple(columns), rows, {})


def objects(path: Path) -> Iterator[Row]:
    name = str(path)
    for number, line in numbered_lines(path):
        if line.strip():
            source = Source(name, number)
            yield source, parse_object(source, line)


class Numeral(float):
    """A number of JSON that is spelled as it was written: 1.10 as a label is no 1.1."""

    def __new__(cls, spelling: str) -> Numeral:
        number = super().__new__(cls, spelling)
        number.spelling = spelling
        return number

    spelling: str

    def __str__(self) -> str:
        return self.spelling


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Raises ValueError for a key that stands twice, of which JSON readers keep the last in silence."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key in found if sum(key == other for other, _ in pairs) > 1)
        raise ValueError(f"'{twice}' stands twice in an object")
    return found


DECODER = json.JSONDecoder(parse_float=Numeral, object_pairs_hook=unique_keys)
"""Made once: ``json.loads`` with settings makes one for every line."""


def parse_object(source: Source, line: str) -> dict[str, Any]:
    try:
        value = DECODER.decode(line)
    except json.JSONDecodeError as error:
        if line.lstrip().startswith("["):
            raise DataError(f"{source}: {A_LIST}") from None
        raise DataError(f"{source}: no valid JSON ({error.msg}: character {error.colno}).") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; brackets thousands deep
        raise DataError(f"{source}: no usable JSON ({error}).") from None
    if not isinstance(value, dict):
        raise DataError(f'{source}: expected an object such as {{"text": ..., "label": ...}}, got {line[:40]}.')
    return value


def read_parquet(path: Path) -> Table:
    if path.suffix.lower() in PACKINGS:
        raise DataError(f"{path}: a parquet file is packed inside already. Unpack it.")
    import datasets

    try:
        file = pyarrow.parquet.ParquetFile(path, memory_map=True)
        features = datasets.Features.from_arrow_schema(file.schema_arrow)
    except Exception as error:  # damaged content and metadata end in half a dozen types
        raise unreadable(path, error) from error
    return from_batches(str(path), file.schema_arrow.names, features, Again(lambda: parquet_batches(path)))


def parquet_batches(path: Path) -> Iterator[pyarrow.RecordBatch]:
    try:
        yield from pyarrow.parquet.ParquetFile(path, memory_map=True).iter_batches(BATCH_ROWS)
    except Exception as error:  # as above
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: cannot be read as a parquet file ({first_line(error)}).")


def read_hub(spelling: str) -> dict[str, Table]:
    """The splits of ``hub:org/name[@revision][:config]``, by their names on the Hub."""
    name, _, config = spelling.removeprefix(HUB_PREFIX).partition(":")
    name, _, revision = name.partition("@")
    import datasets

    with quiet_datasets():
        try:
            parts = datasets.load_dataset(name, config or None, revision=revision or None)
        except Exception as error:  # huggingface_hub, fsspec and datasets raise a dozen types here
            if str(error).startswith("Config name is missing"):
                names = " ".join(str(error).split()[4:])
                raise DataError(f"{spelling} has several configurations. {names}, as hub:{name}:CONFIG.") from error
            raise DataError(
                f"{spelling}: the data set could not be downloaded from the Hub ({first_line(error)}). "
                "Check the spelling and the network, or name files."
            ) from error
    return {str(split): from_dataset(part, f"{spelling}/{split}") for split, part in parts.items()}


@contextmanager
def quiet_datasets() -> Iterator[None]:
    import datasets

    shown = datasets.utils.logging.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def from_dataset(part: Any, name: str) -> Table:
    batches = part.with_format("arrow")
    arrow = Again(lambda: (batch for table in batches.iter(BATCH_ROWS) for batch in table.to_batches()))
    return replace(from_batches(name, part.column_names, part.features, arrow), fingerprint=part._fingerprint)


def from_batches(
    name: str, columns: Sequence[str], features: Mapping[str, Any], batches: Iterable[pyarrow.RecordBatch]
) -> Table:
    if len(set(columns)) < len(columns):
        raise DataError(f"{name}: two columns have the same name ({', '.join(columns)}). Rename one.")
    if not any(batch.num_rows for batch in batches):
        raise DataError(f"{name} is empty.")
    names = {column: found for column in columns if (found := class_names(features[column]))}
    return Table(name, tuple(columns), Again(lambda: batch_rows(name, batches)), names)


def batch_rows(name: str, batches: Iterable[pyarrow.RecordBatch]) -> Iterator[Row]:
    rows = (row for batch in batches for row in batch.to_pylist())
    return ((Source(name, number), row) for number, row in enumerate(rows, start=1))


def class_names(feature: Any) -> list[str]:
    names = getattr(getattr(feature, "feature", feature), "names", None)
    return list(names or [])
