"""From the files that a user names to a check: which task they are for, and their parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nlp_transfer.checking.config import CheckConfig
from nlp_transfer.checking.findings import Parts
from nlp_transfer.data.columns import HEADER_NAMES, TAGS_NAMES, WORDS_NAMES
from nlp_transfer.data.config import DataConfig, NerData, TextData
from nlp_transfer.data.conll import COMMENT, TAG
from nlp_transfer.data.lines import numbered_lines
from nlp_transfer.data.notes import Notes
from nlp_transfer.data.packing import ending
from nlp_transfer.data.reading import read_ner_parts, read_text_parts
from nlp_transfer.data.rows import Table
from nlp_transfer.data.sources import COLUMN_ENDINGS, part_files
from nlp_transfer.data.spans import has_spans
from nlp_transfer.data.tables import HUB_PREFIX, TABLE_FORMATS, read_table, sniff
from nlp_transfer.data.tags import TAGS_FILE
from nlp_transfer.data.texts import LABEL_FILE
from nlp_transfer.errors import ConfigError

if TYPE_CHECKING:
    from nlp_transfer.checking.check import Check

PART_ORDERS = {1: ("train",), 2: ("train", "test"), 3: ("train", "validation", "test")}
SHARE_OF_TAGS = 0.9


def check_files(files: Sequence[str], config: CheckConfig) -> Check:
    """One file or folder is train; two are train and test; three are train, validation and test."""
    if len(files) not in PART_ORDERS:
        raise ConfigError(f"check takes one to three files: train, or train and test, or all parts; got {len(files)}.")
    named = dict(zip(PART_ORDERS[len(files)], files, strict=True))
    train, validation, test = (named["train"], named.get("validation"), named.get("test"))
    notes = Notes()
    parts: Parts
    if is_tagged(train, config):
        tagged = NerData(
            train=train,
            validation=validation,
            test=test,
            words_column=config.words_column,
            tags_column=config.tags_column,
            on_similar_labels=config.on_similar_labels,
            on_illegal_tags=config.on_illegal_tags,
            on_misaligned_span=config.on_misaligned_span,
        )
        parts = dict(read_ner_parts(tagged, notes))
    else:
        texts = TextData(
            train=train,
            validation=validation,
            test=test,
            text_column=config.text_column,
            text_pair_column=config.text_pair_column,
            label_column=config.label_column,
            on_similar_labels=config.on_similar_labels,
            on_missing_label=config.on_missing_label,
        )
        parts = dict(read_text_parts(texts, notes, multi_label=config.multi_label))
    from nlp_transfer.checking.check import check_parts  # seconds of imports, which a file that is refused can spare

    return check_parts(
        parts, notes, config.checkpoint, max_tokens=config.max_tokens, allow_leakage=config.allow_leakage
    )


def is_tagged(train: str, config: CheckConfig) -> bool:
    if config.task != "auto" or config.multi_label:
        return config.task == "ner"
    if train.startswith(HUB_PREFIX):
        raise ConfigError(f"{train}: name the task of a Hub set with --task.")
    path = part_files(DataConfig(train=train), Notes())["train"][0]
    if path.is_dir():
        if (path / TAGS_FILE).is_file() and (path / LABEL_FILE).is_file():
            raise ConfigError(f"{path} holds both {TAGS_FILE} and {LABEL_FILE}: name the task with --task.")
        return (path / TAGS_FILE).is_file()
    if ending(path) in COLUMN_ENDINGS:
        return True
    kind = TABLE_FORMATS.get(ending(path)) or sniff(path)
    if kind in ("jsonl", "parquet"):
        return holds_tags(read_table(path, HEADER_NAMES, Notes()))
    return ending(path) != ".csv" and mostly_tags(path)


def holds_tags(table: Table) -> bool:
    columns = {name.casefold() for name in table.columns}
    return has_spans(table) or bool(columns & set(WORDS_NAMES) and columns & set(TAGS_NAMES))


def mostly_tags(path: Path) -> bool:
    """Whether the last column is one of tags, and more than O."""
    num_rows, tags = 0, Counter[str]()
    for _, line in numbered_lines(path):
        cells = line.split()
        if cells and not COMMENT.match(line):
            num_rows += 1
            tags.update([cells[-1]] if len(cells) > 1 and TAG.fullmatch(cells[-1]) else [])
    return tags.total() >= SHARE_OF_TAGS * max(1, num_rows) and len(tags) > 1
