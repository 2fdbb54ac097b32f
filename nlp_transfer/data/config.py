"""Settings that say where the data is. No tensors here: recipes read them for their help text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The labelled files of a run."""

    train: str
    """File to learn from, or hub:org/name[@revision][:config]. What of validation and test is not named is held out
    from it."""
    validation: str | None = None
    """File that picks the best epoch."""
    test: str | None = None
    """File that the reported score is measured on, once."""


@dataclass(frozen=True, kw_only=True)
class TextData(DataConfig):
    """Texts with labels: csv, tsv, jsonl, parquet, a folder with seq.in and label, or hub:org/name."""

    text_column: str | None = None
    """Column of the text; recognised by its name if not given."""
    text_pair_column: str | None = None
    """Column of the second text, for tasks on pairs."""
    label_column: str | None = None
    """Column of the label."""


@dataclass(frozen=True, kw_only=True)
class NerData(DataConfig):
    """Words with tags: CoNLL columns, jsonl, parquet, a folder with seq.in and seq.out, or hub:org/name."""

    words_column: str | None = None
    """Column of the words: a name, or in CoNLL files a number from 0. There, the first column if not given."""
    tags_column: str | None = None
    """Column of the tags. In CoNLL files the last one if not given."""
