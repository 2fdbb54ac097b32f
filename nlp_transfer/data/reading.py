"""Read the parts of a labelled set: one entry for each task."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nlp_transfer.data.columns import HEADER_NAMES, TextColumns, text_columns, word_columns
from nlp_transfer.data.config import DataConfig, NerData, TextData
from nlp_transfer.data.conll import read_conll
from nlp_transfer.data.examples import Example, Source, Splits, TaggedExample, TextExample
from nlp_transfer.data.splits import complete
from nlp_transfer.data.tables import HUB_PREFIX, TABLE_FORMATS, Table, numbered_lines, read_hub, read_table, sniff
from nlp_transfer.errors import DataError, quoted
from nlp_transfer.labels import OUTSIDE, PREFIXES, detect_scheme, spans_of, split_tag, to_iob2

SEQUENCE_FILE, TAGS_FILE, LABEL_FILE = "seq.in", "seq.out", "label"
HUB_VALIDATION_NAMES = ("validation", "dev", "valid", "val")
MULTI_LABEL_SEPARATOR = ","


def read_text_classification(config: TextData, *, multi_label: bool = False, seed: int = 0) -> Splits[TextExample]:
    """Texts with labels. What is not named of validation and test is held out from train, drawn from ``seed``.

    Raises DataError, one line with file and line number, for what cannot be read.
    """

    def read(path: Path) -> tuple[list[TextExample], list[str]]:
        return read_texts(path, config, multi_label=multi_label)

    def read_hub_table(table: Table) -> tuple[list[TextExample], list[str]]:
        return texts_of(table, config, multi_label=multi_label)

    splits, notes = read_parts(config, read, read_hub_table)
    return complete(
        splits["train"],
        splits.get("validation"),
        splits.get("test"),
        seed=seed,
        key=lambda example: fold(f"{example.text}\t{example.text_pair or ''}"),
        stratum=lambda example: "\t".join(example.labels),
        notes=notes,
    )


def read_ner(config: NerData, *, seed: int = 0) -> Splits[TaggedExample]:
    """Words with IOB2 tags, whatever scheme the files are in. Held-out parts and errors as for texts."""

    def read(path: Path) -> tuple[list[TaggedExample], list[str]]:
        return in_iob2(read_tagged(path, config))

    def read_hub_table(table: Table) -> tuple[list[TaggedExample], list[str]]:
        return in_iob2(tagged_of(table, config))

    splits, notes = read_parts(config, read, read_hub_table)
    return complete(
        splits["train"],
        splits.get("validation"),
        splits.get("test"),
        seed=seed,
        key=lambda example: fold(" ".join(example.words)),
        stratum=lambda example: " ".join(sorted({span.label for span in spans_of(example.tags)})),
        notes=notes,
    )


def read_text_file(file: str, config: TextData, *, multi_label: bool) -> tuple[list[TextExample], list[str]]:
    """The examples of one file, and what was recognised in it."""
    return read_texts(existing(file, None), config, multi_label=multi_label)


def read_ner_file(file: str, config: NerData) -> tuple[list[TaggedExample], list[str]]:
    """The examples of one file, in IOB2, and what was recognised in it."""
    return in_iob2(read_tagged(existing(file, None), config))


def read_parts(
    config: DataConfig,
    read: Callable[[Path], tuple[list[Example], list[str]]],
    read_hub_table: Callable[[Table], tuple[list[Example], list[str]]],
) -> tuple[dict[str, list[Example]], list[str]]:
    """The named parts, and what was recognised in them."""
    parts: dict[str, list[Example]] = {}
    notes: list[str] = []
    if config.train.startswith(HUB_PREFIX):
        tables = rename_hub_splits(read_hub(config.train), config.train)
        parts = {name: gather(read_hub_table(table), notes) for name, table in tables.items()}
    named = {"train": config.train, "validation": config.validation, "test": config.test}
    for name, spelling in named.items():
        if spelling is not None and not spelling.startswith(HUB_PREFIX):
            parts[name] = gather(read(existing(spelling, name)), notes)
        elif spelling is not None and name != "train":
            raise DataError(f"--{name} {spelling}: only --train takes a Hub id; its splits are used as they are named.")
    return parts, list(dict.fromkeys(notes))


def gather(read: tuple[list[Example], list[str]], notes: list[str]) -> list[Example]:
    notes.extend(read[1])
    return read[0]


def rename_hub_splits(tables: dict[str, Table], spelling: str) -> dict[str, Table]:
    if "train" not in tables:
        raise DataError(f"{spelling} has no split 'train'. Its splits are {quoted(list(tables))}.")
    validation = next((tables[name] for name in HUB_VALIDATION_NAMES if name in tables), None)
    named = {"train": tables["train"], "validation": validation, "test": tables.get("test")}
    return {name: table for name, table in named.items() if table is not None}


def existing(spelling: str, setting: str | None) -> Path:
    """``setting`` is the flag that named the file, if one did."""
    named = f"--{setting} {spelling}" if setting else spelling
    path = Path(os.path.expanduser(spelling))
    if not path.exists():
        hub = " A data set on the Hub is spelled hub:org/name." if setting == "train" else ""
        raise DataError(f"{named}: there is no such file.{hub}")
    if path.is_dir() and not (path / SEQUENCE_FILE).is_file():
        raise DataError(f"{named} is a folder without a file '{SEQUENCE_FILE}'. Name a file.")
    return path


def read_texts(path: Path, config: TextData, *, multi_label: bool) -> tuple[list[TextExample], list[str]]:
    if path.is_dir():
        pairs = zip_lines(path / SEQUENCE_FILE, path / LABEL_FILE)
        return [
            TextExample(
                text,
                tuple(label_name(item, (), source) for item in (split_labels(label) if multi_label else [label])),
                source,
            )
            for source, text, label in pairs
        ], []
    return texts_of(read_table(path, HEADER_NAMES), config, multi_label=multi_label)


def texts_of(table: Table, config: TextData, *, multi_label: bool) -> tuple[list[TextExample], list[str]]:
    columns = text_columns(table, config.text_column, config.text_pair_column, config.label_column)
    examples = [text_example(source, row, columns, table, multi_label) for source, row in table.rows]
    pair = f", second text from '{columns.text_pair}'" if columns.text_pair else ""
    return examples, [f"Text is read from column '{columns.text}'{pair}, label from '{columns.label}'."]


def text_example(
    source: Source, row: Mapping[str, Any], columns: TextColumns, table: Table, multi_label: bool
) -> TextExample:
    names = table.label_names.get(columns.label, ())
    value = row.get(columns.label)
    values = split_labels(value) if multi_label else [value]
    labels = tuple(label_name(item, names, source) for item in values)
    pair = cell_text(row.get(columns.text_pair), source, columns.text_pair) if columns.text_pair else None
    return TextExample(cell_text(row.get(columns.text), source, columns.text), labels, source, pair)


def split_labels(value: Any) -> list[Any]:
    """A list as it is, or names parted by commas; nothing means no label."""
    if isinstance(value, str):
        return [part for part in value.split(MULTI_LABEL_SEPARATOR) if part.strip()]
    if value is None:
        return []
    return list(value) if isinstance(value, Sequence) else [value]


def label_name(value: Any, names: Sequence[str], source: Source) -> str:
    """Names stay names: a number is kept as it is written and never becomes an id or a target value."""
    if names and isinstance(value, int):
        if not 0 <= value < len(names):
            raise DataError(f"{source}: label id {value} has no name; the file names 0 to {len(names) - 1}.")
        return names[value]
    if isinstance(value, list | dict):
        raise DataError(
            f"{source}: the label is a {type(value).__name__}, expected a name. For lists, use multi-label."
        )
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    name = "" if missing else str(value).strip()
    if not name:
        raise DataError(f"{source}: label is empty. Each row needs one of your labels; delete the row or label it.")
    return name


def cell_text(value: Any, source: Source, column: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{source}: column '{column}' holds no text. Each row needs one; delete the row or fill it.")
    refuse_surrogates(value, f"{source}: column '{column}'")
    return value


def refuse_surrogates(text: str, where: str) -> None:
    """Tokenizers fail at them; JSON escapes and bytes that are no UTF-8 bring them in."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(f"{where} holds half a surrogate pair, which is no character.") from None


def read_tagged(path: Path, config: NerData) -> list[TaggedExample]:
    if path.is_dir():
        pairs = zip_lines(path / SEQUENCE_FILE, path / TAGS_FILE)
        return [tagged(source, words.split(), tags.split()) for source, words, tags in pairs]
    if path.suffix.lower() in TABLE_FORMATS and TABLE_FORMATS[path.suffix.lower()] in ("jsonl", "parquet"):
        return tagged_of(read_table(path, HEADER_NAMES), config)
    if path.suffix.lower() == ".csv":
        raise DataError(f"{path}: words and tags are read from CoNLL columns, jsonl or parquet, not from csv.")
    if sniff(path) == "jsonl":
        return tagged_of(read_table(path, HEADER_NAMES), config)
    return read_conll(path, column_number(config.words_column, 0), column_number(config.tags_column, -1))


def column_number(value: str | None, default: int) -> int:
    if value is None:
        return default
    if not value.removeprefix("-").isdecimal():
        raise DataError(f"CoNLL files have no column names: got '{value}', expected a number such as 0 or -1.")
    return int(value)


def tagged_of(table: Table, config: NerData) -> list[TaggedExample]:
    words_column, tags_column = word_columns(table, config.words_column, config.tags_column)
    names = table.label_names.get(tags_column, ())
    examples = []
    for source, row in table.rows:
        words, tags = row.get(words_column), row.get(tags_column)
        if not isinstance(words, list) or not isinstance(tags, list):
            raise DataError(f"{source}: '{words_column}' and '{tags_column}' must be lists of words and of tags.")
        if not all(isinstance(word, str) for word in words):
            raise DataError(f"{source}: column '{words_column}' holds something that is no word.")
        examples.append(tagged(source, words, [label_name(tag, names, source) for tag in tags]))
    return examples


def tagged(source: Source, words: list[str], tags: list[str]) -> TaggedExample:
    if len(words) != len(tags) or not words:
        raise DataError(f"{source}: {len(words)} words and {len(tags)} tags; every word needs one tag.")
    refuse_surrogates(" ".join(words), f"{source}: a word")
    return TaggedExample(tuple(words), tuple(tags), source)


def zip_lines(first: Path, second: Path) -> Iterator[tuple[Source, str, str]]:
    """Line by line through two files of equal length."""
    if not second.is_file():
        raise DataError(f"{second.parent} is a folder without a file '{second.name}'.")
    left, right = list(numbered_lines(first)), list(numbered_lines(second))
    if not left:
        raise DataError(f"{first} is empty.")
    if len(left) != len(right):
        raise DataError(f"{first} has {len(left)} lines and {second} {len(right)}; they must go line by line.")
    for (number, text), (_, label) in zip(left, right, strict=True):
        yield Source(str(first), number), cell_text(text, Source(str(first), number), first.name).strip(), label


def in_iob2(examples: list[TaggedExample]) -> tuple[list[TaggedExample], list[str]]:
    """Recognise the tag scheme of one file and convert it."""
    scheme = detect_scheme(example.tags for example in examples)
    for example in examples:
        check_tags(example, PREFIXES[scheme], scheme)
    converted = [
        TaggedExample(example.words, tuple(to_iob2(example.tags, scheme)), example.source) for example in examples
    ]
    file = examples[0].source.file
    return converted, [] if scheme == "IOB2" else [f"{file}: tags are in {scheme}, read as IOB2."]


def check_tags(example: TaggedExample, prefixes: str, scheme: str) -> None:
    for i, tag in enumerate(example.tags):
        prefix, label = split_tag(tag)
        if tag != OUTSIDE and not (label and prefix in prefixes and prefix != OUTSIDE):
            raise DataError(
                f"{example.source}: tag '{tag}' of word {i + 1} ('{example.words[i]}') is not of the form "
                f"{OUTSIDE} or {'/'.join(prefixes.replace(OUTSIDE, ''))}-TYPE ({scheme})."
            )


def fold(text: str) -> str:
    """Equal for texts that differ in case and blanks only."""
    return " ".join(text.casefold().split())
