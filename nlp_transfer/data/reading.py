"""Read the parts of a labelled set: one entry for each task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nlp_transfer.data.config import DataConfig, NerData, TextData
from nlp_transfer.data.examples import Example, Splits, TaggedExample, TextExample
from nlp_transfer.data.folding import fold
from nlp_transfer.data.notes import Notes
from nlp_transfer.data.similar_labels import settle_tags, settle_texts
from nlp_transfer.data.sources import files_of, part_files, rename_hub_splits
from nlp_transfer.data.splits import complete
from nlp_transfer.data.tables import HUB_PREFIX, Table, read_hub
from nlp_transfer.data.tags import in_iob2, read_tagged, tagged_of
from nlp_transfer.data.texts import read_texts, texts_of
from nlp_transfer.labels import spans_of


def read_text_classification(config: TextData, *, multi_label: bool = False, seed: int = 0) -> Splits[TextExample]:
    """Texts with labels. What is not named of validation and test is held out from train, drawn from ``seed``.

    Raises DataError, one line with file and line number, for what cannot be read.
    """
    notes = Notes()
    parts = read_text_parts(config, notes, multi_label=multi_label)
    return complete(
        parts["train"],
        parts.get("validation"),
        parts.get("test"),
        seed=seed,
        key=lambda example: (fold(example.text), fold(example.text_pair or "")),
        stratum=lambda example: "\t".join(example.labels),
        notes=notes,
    )


def read_ner(config: NerData, *, seed: int = 0) -> Splits[TaggedExample]:
    """Words with IOB2 tags, whatever scheme the files are in. Held-out parts and errors as for texts."""
    notes = Notes()
    parts = read_ner_parts(config, notes)
    return complete(
        parts["train"],
        parts.get("validation"),
        parts.get("test"),
        seed=seed,
        key=lambda example: fold(" ".join(example.words)),
        stratum=lambda example: " ".join(sorted({span.label for span in spans_of(example.tags)})),
        notes=notes,
    )


def read_text_parts(config: TextData, notes: Notes, *, multi_label: bool) -> dict[str, list[TextExample]]:
    """The parts that are there, with nothing held out."""
    parts = read_parts(
        config,
        lambda path: read_texts(path, config, notes, multi_label=multi_label),
        lambda table: texts_of(table, config, notes, multi_label=multi_label),
        notes,
    )
    return settle_texts(parts, config.on_similar_labels, notes)


def read_ner_parts(config: NerData, notes: Notes) -> dict[str, list[TaggedExample]]:
    """The parts that are there, with nothing held out."""
    parts = read_parts(
        config,
        lambda path: read_tagged(path, config, notes),
        lambda table: tagged_of(table, config, notes),
        notes,
    )
    settled = settle_tags(parts, config.on_similar_labels, notes)
    return {name: in_iob2(examples, config, notes) for name, examples in settled.items()}


def read_text_file(spelling: str, config: TextData, *, multi_label: bool) -> tuple[list[TextExample], tuple[str, ...]]:
    """The examples of one spelling, and what was recognised in them."""
    notes = Notes()
    examples = [e for path in files_of(spelling) for e in read_texts(path, config, notes, multi_label=multi_label)]
    return examples, notes.lines()


def read_ner_file(spelling: str, config: NerData) -> tuple[list[TaggedExample], tuple[str, ...]]:
    """The examples of one spelling, in IOB2, and what was recognised in them."""
    notes = Notes()
    examples = [example for path in files_of(spelling) for example in read_tagged(path, config, notes)]
    return in_iob2(examples, config, notes), notes.lines()


def read_parts(
    config: DataConfig,
    read: Callable[[Path], list[Example]],
    read_hub_table: Callable[[Table], list[Example]],
    notes: Notes,
) -> dict[str, list[Example]]:
    parts: dict[str, list[Example]] = {}
    if config.train.startswith(HUB_PREFIX):
        tables = rename_hub_splits(read_hub(config.train), config.train)
        parts = {name: read_hub_table(table) for name, table in tables.items()}
    for name, paths in part_files(config, notes).items():
        parts[name] = [example for path in paths for example in read(path)]
    return parts
