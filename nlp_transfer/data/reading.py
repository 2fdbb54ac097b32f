"""Read the parts of a labelled set: one entry for each task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Generic

from nlp_transfer.data.config import DataConfig, NerData, TextData
from nlp_transfer.data.examples import Example, TaggedExample, TextExample
from nlp_transfer.data.layouts import TAGGED, TEXTS, Layout
from nlp_transfer.data.notes import Notes
from nlp_transfer.data.rows import Table
from nlp_transfer.data.similar_labels import settle
from nlp_transfer.data.sources import files_of, files_of_part, part_files, rename_hub_splits
from nlp_transfer.data.splits import Splits, complete
from nlp_transfer.data.store import ExampleStore, stored
from nlp_transfer.data.tables import HUB_PREFIX, read_hub
from nlp_transfer.data.tags import in_iob2, read_tagged, tagged_of
from nlp_transfer.data.texts import read_texts, texts_of
from nlp_transfer.errors import DataError
from nlp_transfer.fingerprints import hash_files


@dataclass(frozen=True)
class Reader(Generic[Example]):
    """How the examples of one task are read, from the cache where they were read before."""

    layout: Layout[Example]
    of_path: Callable[[Path, Notes], Iterable[Example]]
    of_table: Callable[[Table, Notes], Iterable[Example]]
    settings: Sequence[Any]
    """All that the result depends on beside the content."""

    def paths(self, paths: Sequence[Path], notes: Notes) -> ExampleStore[Example]:
        content = hashes(paths)

        def read(notes: Notes) -> Iterator[Example]:
            for path in paths:
                yield from self.of_path(path, notes)
            if hashes(paths) != content:
                raise DataError(f"{paths[0]}: changed while it was read. Start again.")

        examples = stored(self.layout, [*self.settings, content], read, notes)
        if not examples:
            raise DataError(f"{paths[0]} holds no example.")
        return examples

    def table(self, table: Table, notes: Notes) -> ExampleStore[Example]:
        key = [*self.settings, table.name, table.fingerprint]
        return stored(self.layout, key, lambda notes: self.of_table(table, notes), notes)


def hashes(paths: Sequence[Path]) -> list[tuple[str, str]]:
    return [(str(path), hash_files(files_of_part(path))) for path in paths]


def text_reader(config: TextData, *, multi_label: bool) -> Reader[TextExample]:
    return Reader(
        TEXTS,
        lambda path, notes: read_texts(path, config, notes, multi_label=multi_label),
        lambda table, notes: texts_of(table, config, notes, multi_label=multi_label),
        ["texts", multi_label, settings_of(config, TextData)],
    )


def tagged_reader(config: NerData) -> Reader[TaggedExample]:
    return Reader(
        TAGGED,
        lambda path, notes: read_tagged(path, config, notes),
        lambda table, notes: tagged_of(table, config, notes),
        ["tagged", settings_of(config, NerData)],
    )


def settings_of(config: DataConfig, kind: type[DataConfig]) -> dict[str, Any]:
    """Of reading alone: a recipe's config holds others, too."""
    shared = {field.name for field in fields(DataConfig)}
    return {field.name: getattr(config, field.name) for field in fields(kind) if field.name not in shared}


def read_text_classification(config: TextData, *, multi_label: bool = False, seed: int = 0) -> Splits[TextExample]:
    """Texts with labels. What is not named of validation and test is held out from train, drawn from ``seed``.

    Raises DataError, one line with file and line number, for what cannot be read.
    """
    notes = Notes()
    parts = read_text_parts(config, notes, multi_label=multi_label)
    return complete(parts, seed=seed, allow_leakage=config.allow_leakage, notes=notes)


def read_ner(config: NerData, *, seed: int = 0) -> Splits[TaggedExample]:
    """Words with IOB2 tags, whatever scheme the files are in. Held-out parts and errors as for texts."""
    notes = Notes()
    parts = read_ner_parts(config, notes)
    return complete(parts, seed=seed, allow_leakage=config.allow_leakage, notes=notes)


def read_text_parts(config: TextData, notes: Notes, *, multi_label: bool) -> dict[str, ExampleStore[TextExample]]:
    """The parts that are there, with nothing held out."""
    parts = read_parts(config, text_reader(config, multi_label=multi_label), notes)
    return settle(parts, config.on_similar_labels, notes)


def read_ner_parts(config: NerData, notes: Notes) -> dict[str, ExampleStore[TaggedExample]]:
    """The parts that are there, with nothing held out."""
    parts = settle(read_parts(config, tagged_reader(config), notes), config.on_similar_labels, notes)
    return {name: in_iob2(examples, config, notes) for name, examples in parts.items()}


def read_parts(config: DataConfig, reader: Reader[Example], notes: Notes) -> dict[str, ExampleStore[Example]]:
    parts: dict[str, ExampleStore[Example]] = {}
    if config.train.startswith(HUB_PREFIX):
        tables = rename_hub_splits(read_hub(config.train), config.train, notes)
        parts = {name: reader.table(table, notes) for name, table in tables.items()}
    for name, paths in part_files(config, notes).items():
        parts[name] = reader.paths(paths, notes)
    return parts


def read_text_file(spelling: str, config: TextData, notes: Notes, *, multi_label: bool) -> ExampleStore[TextExample]:
    """The examples of one spelling."""
    return text_reader(config, multi_label=multi_label).paths(files_of(spelling), notes)


def read_ner_file(spelling: str, config: NerData, notes: Notes) -> ExampleStore[TaggedExample]:
    """The examples of one spelling, in IOB2."""
    return in_iob2(tagged_reader(config).paths(files_of(spelling), notes), config, notes)
