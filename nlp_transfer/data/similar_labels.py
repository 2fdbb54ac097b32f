"""Labels that differ in how they are written only: one class spelled twice, as a rule."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping

from nlp_transfer.data.cells import MISSING_WORDS, QUOTES
from nlp_transfer.data.config import OnSimilarLabels
from nlp_transfer.data.examples import Example, Source
from nlp_transfer.data.folding import fold
from nlp_transfer.data.notes import Notes
from nlp_transfer.data.store import ExampleStore
from nlp_transfer.errors import DataError

WHOLE_NUMBER = re.compile(r"(-?)0*([0-9]+)(?:\.0+)?")
MAX_TOLD, MAX_SHOWN = 3, 60


def settle(
    parts: Mapping[str, ExampleStore[Example]], on_similar: OnSimilarLabels, notes: Notes
) -> dict[str, ExampleStore[Example]]:
    """The parts with similar labels (NER: entity types) merged, if so wished; refused, if not wished otherwise."""
    counts: Counter[str] = Counter()
    first: dict[str, Source] = {}
    for part in parts.values():
        for label, (count, place) in part.label_places().items():
            if class_ := part.layout.class_of(label):
                counts[class_] += count
                first.setdefault(class_, place)
    renamed = merged(counts, first, on_similar, notes)
    return {name: part.renamed(new_names(part, renamed)) for name, part in parts.items()}


def new_names(part: ExampleStore[Example], renamed: Mapping[str, str]) -> dict[str, str]:
    """What the labels of a part, or its tags, are to be called."""
    classes = {label: part.layout.class_of(label) for label in part.header.labels}
    return {
        label: label.removesuffix(class_) + renamed[class_] for label, class_ in classes.items() if class_ in renamed
    }


def merged(
    counts: Counter[str], first: Mapping[str, Source], on_similar: OnSimilarLabels, notes: Notes
) -> dict[str, str]:
    """What each class that gives way is to be called."""
    spellings: dict[str, list[str]] = defaultdict(list)
    for label, number in counts.most_common():
        spellings[bare(label)].append(label)
        if label.casefold() in MISSING_WORDS:
            notes.count(f"Labels '{label}', which may stand for a missing one", first[label], number)
    similar = [names for names in spellings.values() if len(names) > 1]
    for names in similar:
        told = " and ".join(
            f"'{name[:MAX_SHOWN]}' ({counts[name]:,}, first at {first[name]})" for name in names[:MAX_TOLD]
        )
        if on_similar == "refuse":
            raise DataError(
                f"{first[names[1]]}: the labels {told} differ in case, blanks, quotation marks or the spelling of a "
                "number only. Spell them alike, or pass --on-similar-labels merge, or keep."
            )
        done = f"merged into '{names[0]}'" if on_similar == "merge" else "kept apart"
        notes.say(f"The labels {told} are {done}.")
    return {name: names[0] for names in similar for name in names[1:]} if on_similar == "merge" else {}


def bare(label: str) -> str:
    """Equal for labels that differ in how they are written only: 1, 1.0, 01 and "1"; but 1.1 is no 1.10."""
    inner = fold(label).strip(QUOTES) or label
    number = WHOLE_NUMBER.fullmatch(inner)
    return f"{number[1]}{number[2]}" if number else inner
