"""Label names and ids; IOB1/IOB2/BIOES/BILOU tags to entity spans and back. No tensors here.

Inside the toolkit tags are always IOB2: ``B-X`` begins an entity, ``I-X`` continues it, ``O`` is outside.
Files in another scheme are converted where they enter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

from nlp_transfer.errors import DataError, did_you_mean

IGNORE_INDEX = -100
"""The label id of a position that is no target: padding, special tokens, later pieces of a word."""

OUTSIDE = "O"

Scheme = Literal["IOB1", "IOB2", "BIOES", "BILOU"]


@dataclass(frozen=True)
class LabelSet:
    """An ordered set of label names; a label's id is its position."""

    names: tuple[str, ...]

    @classmethod
    def collect(cls, names: Iterable[str]) -> LabelSet:
        """The distinct names in alphabetical order, so that the order of the data does not matter."""
        return cls(tuple(sorted(set(names))))

    @classmethod
    def for_tags(cls, types: Iterable[str]) -> LabelSet:
        """``O``, and ``B-`` and ``I-`` of every entity type, so that every legal sequence can be written."""
        return cls((OUTSIDE, *(f"{prefix}-{type_}" for type_ in sorted(set(types)) for prefix in "BI")))

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self._ids

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {name: id_ for id_, name in enumerate(self.names)}

    def id(self, name: str) -> int:
        """Raises DataError, with the nearest known name, for a name that is not in the set."""
        if name not in self._ids:
            known = ", ".join(self.names[:20]) + (", ..." if len(self) > 20 else "")
            raise DataError(f"{name!r} is not one of the {len(self)} labels: {known}.{did_you_mean(name, self.names)}")
        return self._ids[name]


class Span(NamedTuple):
    """A typed span of words: ``words[start:end]``."""

    label: str
    start: int
    end: int


def split_tag(tag: str) -> tuple[str, str]:
    """``"B-PER"`` to ``("B", "PER")``; ``"O"`` to ``("O", "")``. Types may hold hyphens: ``B-geo-loc``."""
    prefix, _, label = tag.partition("-")
    return prefix, label


def says_nothing(predicted: Any) -> bool:
    """Whether a prediction, as it is recorded, names no label, or of tags no entity."""
    return isinstance(predicted, list) and set(predicted) <= {OUTSIDE}


def spans_of(tags: Sequence[str]) -> list[Span]:
    """Read IOB2 tags. A stray ``I-X`` opens an entity, as conlleval and seqeval's default have it."""
    found: list[Span] = []
    start, current = 0, ""
    for i, tag in enumerate([*tags, OUTSIDE]):
        prefix, label = split_tag(tag)
        continues = prefix == "I" and label == current
        if current and not continues:
            found.append(Span(current, start, i))
            current = ""
        if label and not current:
            start, current = i, label
    return found


def strict_spans_of(tags: Sequence[str]) -> list[Span]:
    """Read IOB2 tags, counting only entities that begin with ``B-``, as seqeval's strict mode has it."""
    return [span for span in spans_of(tags) if split_tag(tags[span.start])[0] == "B"]


def tags_of(spans: Iterable[Span], num_words: int) -> list[str]:
    """Write spans, which must not overlap, as IOB2 tags."""
    tags = [OUTSIDE] * num_words
    for label, start, end in spans:
        tags[start:end] = [f"B-{label}"] + [f"I-{label}"] * (end - start - 1)
    return tags


PREFIXES: dict[Scheme, str] = {"IOB1": "BIO", "IOB2": "BIO", "BIOES": "BIOES", "BILOU": "BILOU"}


def detect_scheme(sequences: Iterable[Sequence[str]]) -> Scheme:
    """The scheme that a file's tags are written in, seen from all of them.

    It is BIOES, or BILOU, when at least half of the entities bear the marks of that scheme, so that a slip of the pen
    does not make it one. With B and I alone it is IOB1 when entities begin with I and every B only separates two
    neighbours of one type; a file that fits both is IOB2.
    """
    prefixes: Counter[str] = Counter()
    any_begin_inside, any_plain_begin, num_entities = False, False, 0
    for tags in sequences:
        previous = ""
        for tag in tags:
            prefix, label = split_tag(tag)
            prefixes[prefix] += 1
            num_entities += prefix in set("BSU") or (bool(label) and label != previous)
            any_begin_inside |= prefix == "I" and label != previous
            any_plain_begin |= prefix == "B" and label != previous
            previous = label
    marked: dict[Scheme, int] = {"BIOES": prefixes["E"] + prefixes["S"], "BILOU": prefixes["L"] + prefixes["U"]}
    scheme = max(marked, key=lambda name: marked[name])
    if marked[scheme] and 2 * marked[scheme] >= num_entities:
        return scheme
    return "IOB1" if any_begin_inside and not any_plain_begin else "IOB2"


ENDS = "ESLU"
"""Prefixes of an entity's last word, in the schemes that mark it."""


def to_iob2(tags: Sequence[str], scheme: Scheme) -> list[str]:
    """Convert one sentence from any scheme. What is illegal is read as conlleval reads it: a stray tag opens an entity.

    The result is always legal.
    """
    if scheme in ("IOB1", "IOB2"):
        return tags_of(spans_of(tags), len(tags))
    converted = []
    before, open_label = "", ""
    for prefix, label in map(split_tag, tags):
        begins = prefix in "BSU" or label != open_label or before in ENDS
        converted.append(f"{'B' if begins else 'I'}-{label}" if label else OUTSIDE)
        before, open_label = prefix, label
    return converted


def illegal_places(tags: Sequence[str], scheme: Scheme) -> list[int]:
    """Positions of the tags that cannot follow the one before (of an entity without an end: its last tag)."""
    if scheme == "IOB1":
        return []
    found = []
    before, open_label = OUTSIDE, ""
    for i, (prefix, label) in enumerate(map(split_tag, (*tags, OUTSIDE))):
        is_open = before in "BI" and bool(open_label)
        continues = bool(label) and prefix in "IEL"
        fits = continues and is_open and label == open_label
        may_end = scheme == "IOB2" or not is_open
        if not (fits or (not continues and may_end)):
            found.append(min(i, len(tags) - 1))
        before, open_label = prefix, label
    return list(dict.fromkeys(found))
