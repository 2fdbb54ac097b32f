"""What a check found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from nlp_transfer.data.examples import Source, TaggedExample, TextExample
from nlp_transfer.labels import spans_of

Severity = Literal["error", "warning", "note"]

MAX_PLACES = 5
PAIR_MARK = "\x1e"
"""Parts the two texts of a pair; no text holds it."""


class Item(NamedTuple):
    """What the check looks at of an example."""

    text: str
    labels: tuple[str, ...]
    """Of a text its labels, in alphabetical order; in NER, its tags."""
    source: Source
    words: tuple[str, ...] = ()
    """In NER."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One kind of thing, with how often it occurs and where."""

    kind: str
    severity: Severity
    count: int
    message: str
    """A sentence that says what it is and what to do."""
    places: tuple[str, ...] = ()
    """The first of them."""


Parts = dict[str, list[Item]]


def item_of(example: TextExample | TaggedExample) -> Item:
    if isinstance(example, TaggedExample):
        return Item(" ".join(example.words), example.tags, example.source, example.words)
    pair = f"{PAIR_MARK}{example.text_pair}" if example.text_pair is not None else ""
    return Item(example.text + pair, tuple(sorted(example.labels)), example.source)


def first_places(places: Sequence[object]) -> tuple[str, ...]:
    return tuple(str(place) for place in places[:MAX_PLACES])


def class_names(item: Item, *, is_ner: bool) -> list[str]:
    """The labels of a text; in NER the types of its entities."""
    return [span.label for span in spans_of(item.labels)] if is_ner else list(item.labels)
