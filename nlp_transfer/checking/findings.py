"""What a check found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from nlp_transfer.data.examples import PAIR_MARK, Source, TaggedExample
from nlp_transfer.data.store import ExampleStore

Severity = Literal["error", "warning", "note"]
Parts = dict[str, ExampleStore[Any]]
"""By name; one is ``train``."""

MAX_PLACES = 5
"""Are named where people read; a program finds all of them in check.json."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One kind of thing, with how often it occurs and where."""

    kind: str
    severity: Severity
    count: int
    message: str
    """A sentence that says what it is and what to do."""
    places: tuple[str, ...] = ()
    """Of all of them."""


def all_places(places: Iterable[object]) -> tuple[str, ...]:
    return tuple(map(str, places))


def sources_of(parts: Parts) -> list[Source]:
    """Where each example stands, by its number counted through all parts."""
    return [source for part in parts.values() for source in part.sources()]


def text_of(example: Any) -> str:
    """The text, both texts of a pair, or the words, in one string."""
    if isinstance(example, TaggedExample):
        return " ".join(example.words)
    pair = "" if example.text_pair is None else PAIR_MARK + example.text_pair
    return str(example.text + pair)
