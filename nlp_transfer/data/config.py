"""Settings that say where the data is. No tensors here: recipes read them for their help text."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from nlp_transfer.errors import refuse_other_choices

OnMissingLabel = Literal["refuse", "skip"]
OnSimilarLabels = Literal["refuse", "merge", "keep"]
OnIllegalTags = Literal["repair", "refuse"]
OnMisalignedSpan = Literal["widen", "refuse"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The labelled files of a run."""

    train: str
    """File to learn from, a pattern of files, a folder with files train, validation and test, or
    hub:org/name[@revision][:config]. What of validation and test is neither named nor found is held out from it."""
    validation: str | None = None
    """File that picks the best epoch."""
    test: str | None = None
    """File that the reported score is measured on, once."""
    on_similar_labels: OnSimilarLabels = "refuse"
    """Labels that differ in how they are written only (Pos and pos, 1 and 1.0): merge them into the most frequent one,
    or keep them apart."""
    allow_leakage: bool = False
    """More than 1 % of validation or test may also stand in train."""

    def __post_init__(self) -> None:
        refuse_other_choices(self)
        for name in ("train", "validation", "test"):
            if isinstance(value := getattr(self, name), os.PathLike):
                object.__setattr__(self, name, os.fspath(value))


@dataclass(frozen=True, kw_only=True)
class TextData(DataConfig):
    """Texts with labels: csv, tsv, jsonl, parquet, a folder with seq.in and label, or hub:org/name."""

    text_column: str | None = None
    """Column of the text; recognised by its name if not given."""
    text_pair_column: str | None = None
    """Column of the second text, for tasks on pairs."""
    label_column: str | None = None
    """Column of the label."""
    on_missing_label: OnMissingLabel = "refuse"
    """Rows without a label: skip them, and count them."""


@dataclass(frozen=True, kw_only=True)
class NerData(DataConfig):
    """Words with tags: CoNLL columns, jsonl, parquet, a folder with seq.in and seq.out, or hub:org/name."""

    words_column: str | None = None
    """Column of the words: a name, or in CoNLL files a number from 0. There, the first column if not given."""
    tags_column: str | None = None
    """Column of the tags. In CoNLL files the last one if not given."""
    on_illegal_tags: OnIllegalTags = "repair"
    """Tags that cannot follow the one before, such as I-PER after O: repair them as conlleval reads them, and count
    them, or refuse the file."""
    on_misaligned_span: OnMisalignedSpan = "widen"
    """Character spans that cut a word: widen them to whole words, and count them, or refuse the file."""
