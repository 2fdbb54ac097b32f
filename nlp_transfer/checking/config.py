"""Settings of a check. No tensors here: the command line reads them for its help text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nlp_transfer.data.config import OnIllegalTags, OnMisalignedSpan, OnMissingLabel, OnSimilarLabels
from nlp_transfer.errors import ConfigError, refuse_other_choices
from nlp_transfer.known_checkpoints import default_checkpoint

TaskChoice = Literal["auto", "text_classification", "ner"]


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """What is checked, and how strictly."""

    task: TaskChoice = "auto"
    """auto: NER where the training file holds tags, else text classification."""
    output: Path = Path("runs/check")
    """Folder for the report, its pictures and check.json."""
    checkpoint: str = default_checkpoint()
    """Whose tokens are counted, and whose encoder looks for suspicious labels."""
    max_tokens: int | None = None
    """Longest input in tokens. None: what the checkpoint takes, at most 512."""
    multi_label: bool = False
    """Any number of labels an example: a list, or names parted by commas."""
    allow_leakage: bool = False
    """More than 1 % of a part may also stand in train."""
    strict: bool = False
    """Warnings count as errors."""
    on_similar_labels: OnSimilarLabels = "refuse"
    """Labels that differ in how they are written only (Pos and pos, 1 and 1.0): merge them into the most frequent one,
    or keep them apart."""
    on_missing_label: OnMissingLabel = "refuse"
    """Text classification: rows without a label: skip them, and count them."""
    on_illegal_tags: OnIllegalTags = "repair"
    """NER: tags that cannot follow the one before: repair and count them, or refuse the file."""
    on_misaligned_span: OnMisalignedSpan = "widen"
    """NER: character spans that cut a word: widen and count them, or refuse the file."""
    text_column: str | None = None
    """Text classification: column of the text."""
    text_pair_column: str | None = None
    """Text classification: column of the second text."""
    label_column: str | None = None
    """Text classification: column of the label."""
    words_column: str | None = None
    """NER: column of the words."""
    tags_column: str | None = None
    """NER: column of the tags."""

    def __post_init__(self) -> None:
        refuse_other_choices(self)
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ConfigError(f"CheckConfig.max_tokens must be at least 1, got {self.max_tokens}.")
