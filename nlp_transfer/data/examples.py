"""What a labelled file holds, and the three parts it is used in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Generic, NamedTuple, TypeVar


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


Example = TypeVar("Example", TextExample, TaggedExample)


@dataclass(frozen=True)
class Splits(Generic[Example]):
    """The parts of a labelled set, and how they came about."""

    train: Sequence[Example]
    """Fits the weights."""
    validation: Sequence[Example]
    """Picks the epoch."""
    test: Sequence[Example] | None
    """Gives the reported score, once. None when a validation part was named but no test part."""
    notes: tuple[str, ...] = ()
    """What was recognised, held out, converted or repaired, one sentence each."""
    held_out: dict[str, list[str]] | None = None
    """Of the parts taken out of the training file: where each of their examples stands."""

    @property
    def scored(self) -> tuple[str, Sequence[Example]]:
        """The part that the run is judged by, with its name."""
        return ("test", self.test) if self.test is not None else ("validation", self.validation)

    def others(self) -> Iterable[Example]:
        """What is not trained on."""
        return chain(self.validation, self.test or ())

    def parts(self) -> Iterable[tuple[str, Sequence[Example]]]:
        named = (("train", self.train), ("validation", self.validation), ("test", self.test))
        return [(name, part) for name, part in named if part is not None]
