"""Labels that differ in case or blanks only: one class spelled twice, as a rule."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from nlp_transfer.data.config import OnSimilarLabels
from nlp_transfer.data.examples import Source, TaggedExample, TextExample
from nlp_transfer.data.folding import fold
from nlp_transfer.data.notes import Notes
from nlp_transfer.errors import DataError
from nlp_transfer.labels import OUTSIDE, split_tag


def settle_texts(
    parts: Mapping[str, list[TextExample]], on_similar: OnSimilarLabels, notes: Notes
) -> dict[str, list[TextExample]]:
    """The parts with similar labels merged, if so wished; refused, if not wished otherwise."""
    labels = ((label, e.source) for part in parts.values() for e in part for label in e.labels)
    renamed = settle(labels, on_similar, notes)
    if not renamed:
        return dict(parts)
    return {
        name: [replace(e, labels=tuple(dict.fromkeys(renamed.get(label, label) for label in e.labels))) for e in part]
        for name, part in parts.items()
    }


def settle_tags(
    parts: Mapping[str, list[TaggedExample]], on_similar: OnSimilarLabels, notes: Notes
) -> dict[str, list[TaggedExample]]:
    """The same for entity types."""
    types = (
        (split_tag(tag)[1], example.place(word))
        for part in parts.values()
        for example in part
        for word, tag in enumerate(example.tags)
        if tag != OUTSIDE
    )
    renamed = settle(types, on_similar, notes)
    if not renamed:
        return dict(parts)
    return {
        name: [replace(e, tags=tuple(rename(tag, renamed) for tag in e.tags)) for e in part]
        for name, part in parts.items()
    }


def rename(tag: str, renamed: Mapping[str, str]) -> str:
    prefix, label = split_tag(tag)
    return f"{prefix}-{renamed[label]}" if label in renamed else tag


def settle(labels: Iterable[tuple[str, Source]], on_similar: OnSimilarLabels, notes: Notes) -> dict[str, str]:
    """What each label that gives way is to be called."""
    counts: Counter[str] = Counter()
    first: dict[str, Source] = {}
    for label, source in labels:
        counts[label] += 1
        first.setdefault(label, source)
    spellings: dict[str, list[str]] = defaultdict(list)
    for label, _ in counts.most_common():
        spellings[fold(label)].append(label)
    similar = [names for names in spellings.values() if len(names) > 1]
    for names in similar:
        told = " and ".join(f"'{name}' ({counts[name]:,}, first at {first[name]})" for name in names)
        if on_similar == "refuse":
            raise DataError(
                f"{first[names[1]]}: the labels {told} differ in case, blanks or the like only. Spell them alike, or "
                "pass --on-similar-labels merge, or keep."
            )
        done = f"merged into '{names[0]}'" if on_similar == "merge" else "kept apart"
        notes.say(f"The labels {told} are {done}.")
    return {name: names[0] for names in similar for name in names[1:]} if on_similar == "merge" else {}
