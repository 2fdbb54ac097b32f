"""Rows with a text and a label, or with a pair of texts, to examples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nlp_transfer.data.cells import MISSING_WORDS, cell_text, is_missing, label_name, split_labels
from nlp_transfer.data.columns import HEADER_NAMES, TextColumns, text_columns
from nlp_transfer.data.config import TextData
from nlp_transfer.data.examples import Source, TextExample
from nlp_transfer.data.lines import zip_lines
from nlp_transfer.data.notes import Notes
from nlp_transfer.data.packing import ending
from nlp_transfer.data.rows import Again, Row, Table
from nlp_transfer.data.sources import COLUMN_ENDINGS, SEQUENCE_FILE
from nlp_transfer.data.tables import read_table
from nlp_transfer.errors import DataError

LABEL_FILE = "label"


def read_texts(path: Path, config: TextData, notes: Notes, *, multi_label: bool) -> Iterator[TextExample]:
    """The examples of one file, or of a folder with ``seq.in`` and ``label``."""
    if path.is_dir():
        return texts_of(sequence_table(path), config, notes, multi_label=multi_label)
    if ending(path) in COLUMN_ENDINGS:
        raise DataError(f"{path}: a column file holds words with tags, which are for named-entity recognition (ner).")
    return texts_of(read_table(path, HEADER_NAMES, notes), config, notes, multi_label=multi_label)


def sequence_table(folder: Path) -> Table:
    file = folder / SEQUENCE_FILE
    rows = Again(
        lambda: (
            (Source(str(file), number), {"text": text.strip(), "label": label})
            for number, text, label in zip_lines(file, folder / LABEL_FILE)
        )
    )
    return Table(str(folder), ("text", "label"), rows, {})


def texts_of(table: Table, config: TextData, notes: Notes, *, multi_label: bool) -> Iterator[TextExample]:
    columns = text_columns(table, config.text_column, config.text_pair_column, config.label_column)
    pair = f", second text from '{columns.text_pair}'" if columns.text_pair else ""
    notes.say(f"{table.name}: text is read from column '{columns.text}'{pair}, label from '{columns.label}'.")
    rows = table.rows
    if config.on_missing_label == "skip":
        rows = labelled(table.rows, columns.label, notes, multi_label=multi_label)
    names = table.label_names.get(columns.label, ())
    is_empty = True
    for source, row in rows:
        is_empty = False
        example = text_example(source, row, columns, names, multi_label)
        if len(example.text) < 8 and example.text.casefold() in MISSING_WORDS:
            notes.count(
                f"Texts of {source.file} that may stand for a missing one ('nan', '#REF!' and the like)", source
            )
        yield example
    if is_empty:
        raise DataError(f"{table.name}: no row has a label in column '{columns.label}'.")


def labelled(rows: Iterable[Row], column: str, notes: Notes, *, multi_label: bool) -> Iterator[Row]:
    for source, row in rows:
        if lacks_label(row, column, multi_label=multi_label):
            notes.count("Rows without a label, skipped", source)
        else:
            yield source, row


def lacks_label(row: Mapping[str, Any], column: str, *, multi_label: bool) -> bool:
    """With several labels a text, an empty cell says that it has none; a key that is not there says nothing."""
    return column not in row or (is_missing(row[column]) and not multi_label)


def text_example(
    source: Source, row: Mapping[str, Any], columns: TextColumns, names: Sequence[str], multi_label: bool
) -> TextExample:
    value = row.get(columns.label)
    if lacks_label(row, columns.label, multi_label=multi_label):
        what = "label is empty" if columns.label in row else f"label is empty: the row has no '{columns.label}'"
        raise DataError(
            f"{source}: {what}. Each row needs one of your labels; delete the row, label it, or pass "
            "--on-missing-label skip."
        )
    values = split_labels(value, source) if multi_label else [value]
    labels = tuple(dict.fromkeys(label_name(item, names, source) for item in values))
    pair = cell_text(row.get(columns.text_pair), source, columns.text_pair) if columns.text_pair else None
    return TextExample(cell_text(row.get(columns.text), source, columns.text), labels, source, pair)
