"""What a labelled file holds, one example at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np

from nlp_transfer.data.folding import fold
from nlp_transfer.errors import DataError

IntArray = np.ndarray[Any, np.dtype[np.int64]]
BoolArray = np.ndarray[Any, np.dtype[np.bool_]]

PAIR_MARK = "\x1e"
"""Parts the two texts of a pair; no folded text holds it."""


class Source(NamedTuple):
    """Where an example was read, for messages: ``reviews.csv:17``."""

    file: str
    line: int
    """Counted from 1; of a parquet file or a Hub set, the row."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


IN_MEMORY = Source("memory", 0)


@dataclass(frozen=True, slots=True)
class TextExample:
    """A text, or a pair of texts, and its labels: one, or any number in multi-label data."""

    text: str
    labels: tuple[str, ...]
    source: Source = IN_MEMORY
    text_pair: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.labels, str):  # which is a sequence of letters
            raise DataError(f"TextExample.labels is a tuple of names, such as ({self.labels!r},), got {self.labels!r}.")

    def folded(self) -> str:
        """Equal for copies that differ in how they are written only."""
        pair = "" if self.text_pair is None else PAIR_MARK + fold(self.text_pair)
        return fold(self.text) + pair


@dataclass(frozen=True, slots=True)
class TaggedExample:
    """Words and one IOB2 tag for each."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    source: Source = IN_MEMORY
    lines: tuple[int, ...] = ()
    """Where each word stands on a line of its own: that line."""

    def place(self, word: int) -> Source:
        return Source(self.source.file, self.lines[word]) if self.lines else self.source

    def folded(self) -> str:
        """Equal for copies that differ in how they are written only."""
        return fold(" ".join(self.words))


Example = TypeVar("Example", TextExample, TaggedExample)
