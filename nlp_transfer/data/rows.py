"""Rows of named columns, from whatever they are read. Every row knows where it stands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from nlp_transfer.data.examples import Source

T = TypeVar("T")
Row = tuple[Source, Mapping[str, Any]]


@dataclass(frozen=True)
class Again(Generic[T]):
    """What can be gone through more than once, since ``start`` begins anew: nothing is held in memory."""

    start: Callable[[], Iterator[T]]

    def __iter__(self) -> Iterator[T]:
        return self.start()


@dataclass(frozen=True)
class Table:
    """Rows of named columns."""

    name: str
    """The file, as it was spelled."""
    columns: tuple[str, ...]
    rows: Iterable[Row]
    """Read anew whenever they are gone through."""
    label_names: Mapping[str, Sequence[str]]
    """For columns that hold ids (a `datasets` ClassLabel): the names of the ids."""
    fingerprint: str = ""
    """Of a Hub set: the one that `datasets` gives it."""
