"""Settings of tasks. No tensors here: recipes read them for their help text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nlp_transfer.data.long_texts import LongTaggedTexts, LongTexts
from nlp_transfer.errors import ConfigError, refuse_other_choices

ClassWeights = Literal["none", "balanced"]
OnUnseenLabel = Literal["refuse", "keep"]

MIN_TOKENS = 8
THRESHOLD = 0.5


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """What labels mean and how they count."""

    max_tokens: int | None = None
    """Longest input in tokens. By default what the checkpoint takes, at most 512."""
    class_weights: ClassWeights = "none"
    """balanced: each target weighs by how rare its label is in train; the weights' mean over train is 1."""
    label_smoothing: float = 0.0
    """Share of each target that is spread evenly over all labels."""
    on_unseen_label: OnUnseenLabel = "refuse"
    """Labels (NER: entity types) of validation or test that train lacks. keep: they count, and are never right."""

    def __post_init__(self) -> None:
        refuse_other_choices(self)
        name = type(self).__name__
        if self.max_tokens is not None and self.max_tokens < MIN_TOKENS:
            raise ConfigError(f"{name}.max_tokens must be at least {MIN_TOKENS}, got {self.max_tokens}.")
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"{name}.label_smoothing must be from 0 to below 1, got {self.label_smoothing}.")


@dataclass(frozen=True, kw_only=True)
class TextClassificationConfig(TaskConfig):
    """Settings of text classification."""

    multi_label: bool = False
    """Any number of labels an example: a list, or names parted by commas."""
    threshold: float = THRESHOLD
    """With multi_label: labels from this probability on are predicted."""
    long_texts: LongTexts = "head"
    """What is read of texts longer than max_tokens. head: their beginning; head_tail: a quarter of the tokens from the
    beginning, the rest from the end; windows: all, in windows that overlap and whose probabilities are averaged."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.threshold < 1:
            raise ConfigError(f"TextClassificationConfig.threshold must be between 0 and 1, got {self.threshold}.")
        if self.threshold != THRESHOLD and not self.multi_label:
            raise ConfigError("TextClassificationConfig.threshold has a meaning with multi_label only. Leave it out.")


@dataclass(frozen=True, kw_only=True)
class NerConfig(TaskConfig):
    """Settings of named-entity recognition."""

    long_texts: LongTaggedTexts = "windows"
    """What is read of texts longer than max_tokens. windows: all, in windows that overlap; head: their beginning, and
    every word beyond is predicted O, and counted as that."""
