"""Hold out validation and test parts: stratified, seeded, duplicates kept on one side."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic

import numpy as np

from nlp_transfer.data.examples import BoolArray, Example, IntArray
from nlp_transfer.data.notes import Notes
from nlp_transfer.data.store import ExampleStore
from nlp_transfer.errors import DataError, counted

HELD_OUT_FRACTION = 0.1
MIN_EXAMPLES = 10
"""Fewer leave nothing to learn from and nothing to judge by."""
LEAKAGE_ALLOWED = 0.01
"""Share of a part that may also stand in train before it is an error."""


@dataclass(frozen=True)
class Splits(Generic[Example]):
    """The parts of a labelled set, and how they came about."""

    train: ExampleStore[Example]
    """Fits the weights."""
    validation: ExampleStore[Example]
    """Picks the epoch."""
    test: ExampleStore[Example] | None
    """Gives the reported score, once. None when a validation part was named but no test part."""
    notes: tuple[str, ...] = ()
    """What was recognised, held out, converted or repaired, one sentence each."""
    held_out: dict[str, list[str]] | None = None
    """Of the parts taken out of the training file: where each of their examples stands."""

    def __post_init__(self) -> None:
        """Lists of examples become stores."""
        for name in ("train", "validation", "test"):
            part = getattr(self, name)
            if part is not None and not isinstance(part, ExampleStore):
                object.__setattr__(self, name, ExampleStore.of(part))

    @property
    def scored(self) -> tuple[str, ExampleStore[Example]]:
        """The part that the run is judged by, with its name."""
        return ("test", self.test) if self.test is not None else ("validation", self.validation)

    def others(self) -> Iterable[ExampleStore[Example]]:
        """What is not trained on."""
        return [part for part in (self.validation, self.test) if part is not None]

    def parts(self) -> dict[str, ExampleStore[Example]]:
        named = (("train", self.train), ("validation", self.validation), ("test", self.test))
        return {name: part for name, part in named if part is not None}


def complete(
    parts: Mapping[str, ExampleStore[Example]], *, seed: int, allow_leakage: bool, notes: Notes
) -> Splits[Example]:
    """Take the parts that are not there out of the training part, a tenth of it each.

    A test part is held out only when no validation part was named either: who names just a validation part wants to be
    judged by it. Raises DataError when more than 1 % of a named part also stands in train, unless ``allow_leakage``.
    """
    train = parts["train"]
    files = train.header.files
    file = files[0] if len(files) == 1 else f"{len(files)} files from {files[0]} on"
    wanted = [] if "validation" in parts else [name for name in ("validation", "test") if name not in parts]
    if wanted and len(train) < MIN_EXAMPLES:
        raise DataError(
            f"{file} holds {len(train)} examples; holding out a {' and a '.join(wanted)} part takes at "
            f"least {MIN_EXAMPLES}. Name the parts with --validation and --test."
        )
    for name in ("validation", "test"):
        if name in parts:
            refuse_leakage(name, parts[name], train, allow_leakage=allow_leakage, notes=notes)
    if "validation" in parts and "test" in parts:
        twice = copies_of(parts["validation"], parts["test"])
        if len(twice):
            first = parts["test"][int(twice[0])].source
            notes.count("Examples of test that also stand in validation", first, times=len(twice))
    completed = dict(parts)
    held_out: dict[str, list[str]] = {}
    count = round(len(train) * HELD_OUT_FRACTION)
    for name in reversed(wanted):
        completed["train"], part = hold_out(completed["train"], count, random.Random(f"{seed} {name}"))
        if not part:
            raise DataError(
                f"{file}: no {name} part can be held out, since every class has only one distinct example. Name the "
                f"part with --{name}."
            )
        completed[name] = part
        held_out[name] = list(map(str, part.sources()))
    for name, where in held_out.items():
        notes.say(f"{len(where):,} examples of {file} held out as {name} (seed {seed}).")
    return Splits(completed["train"], completed["validation"], completed.get("test"), notes.lines(), held_out or None)


def refuse_leakage(
    name: str, part: ExampleStore[Example], train: ExampleStore[Example], *, allow_leakage: bool, notes: Notes
) -> None:
    """Count the examples of ``part`` that also stand in train. Raises DataError for too many."""
    leaked = copies_of(train, part)
    if not len(leaked):
        return
    first = part[int(leaked[0])].source
    share = len(leaked) / len(part)
    if share > LEAKAGE_ALLOWED and not allow_leakage:
        raise DataError(
            f"{first}: {counted(len(leaked), 'example')} of {name} ({share:.1%}), this one first, found in train, too; "
            "the score would be too high. Delete them from train, or pass --allow-leakage."
        )
    notes.count(
        f"Examples of {name} that also stand in train, which makes its score too high", first, times=len(leaked)
    )


def copies_of(known: ExampleStore[Example], part: ExampleStore[Example]) -> IntArray:
    """Which examples of ``part`` also stand in ``known``, up to how they are written."""
    return np.flatnonzero(np.isin(part.keys, known.keys))


def hold_out(
    examples: ExampleStore[Example], count: int, rng: random.Random
) -> tuple[ExampleStore[Example], ExampleStore[Example]]:
    """(rest, held out): about ``count`` examples, of every stratum its share, and of every class some that stay."""
    groups, stratum, names = groups_of_copies(examples)
    sizes = np.bincount(groups)
    order = np.argsort(stratum, kind="stable")
    bounds = np.searchsorted(stratum[order], np.arange(len(names) + 1))
    taken = np.zeros(len(sizes), dtype=bool)
    share, owed = count / len(examples), 0.0
    for i in sorted(range(len(names)), key=names.__getitem__):
        members = order[bounds[i] : bounds[i + 1]]
        of_members = sizes[members].tolist()
        owed += share * sum(of_members)  # what one stratum falls short, the next makes up for
        drawn = []
        for place in rng.sample(range(len(members)), len(members))[:-1]:
            if owed < of_members[place] / 2:
                continue  # too many copies of one text; a smaller group may still fit
            drawn.append(place)
            owed -= of_members[place]
        largest = max(of_members) if len(members) > 1 else 1
        owed = min(owed, largest)  # and not what a hundred strata of one example each fall short
        taken[members[drawn]] = True
    is_alone = (np.diff(bounds) == 1)[stratum]
    spare = is_alone if taken.any() else ~taken
    taken[list(spare_groups(stratum, names, sizes, taken, spare, count, rng))] = True
    is_taken = taken[groups]
    return examples.take(np.flatnonzero(~is_taken)), examples.take(np.flatnonzero(is_taken))


def spare_groups(
    stratum: IntArray,
    names: list[str],
    sizes: IntArray,
    taken: BoolArray,
    spare: BoolArray,
    count: int,
    rng: random.Random,
) -> Iterator[int]:
    """More of the ``spare`` groups, up to ``count`` examples with those that are ``taken``: of texts no two of which
    bear the same classes, those whose every class also stands in one that stays.
    """
    classes = [set(re.split("[\t\n]", name)) for name in names]
    staying: Counter[str] = Counter()
    for own, number in zip(classes, np.bincount(stratum[~taken], minlength=len(names)).tolist(), strict=True):
        staying.update(dict.fromkeys(own, number))
    missing = count - int(sizes[taken].sum())
    candidates = np.flatnonzero(spare).tolist()
    for group in rng.sample(candidates, len(candidates)):
        own = classes[int(stratum[group])]
        if missing >= sizes[group] and all(staying[class_] > 1 for class_ in own):
            staying.subtract(own)
            missing -= int(sizes[group])
            yield group


def groups_of_copies(examples: ExampleStore[Example]) -> tuple[IntArray, IntArray, list[str]]:
    """Of each example its group of copies, numbered as they first occur; of each group its stratum; their names.

    Copies that bear different labels make up a stratum of their own.
    """
    _, first, inverse = np.unique(examples.keys, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    groups = rank[inverse]
    names, of_each = examples.strata()
    stratum = of_each[np.sort(first)]  # of each group's first example
    mixed: dict[int, set[str]] = defaultdict(set)
    for place in np.flatnonzero(of_each != stratum[groups]).tolist():
        mixed[int(groups[place])] |= {names[stratum[groups[place]]], names[of_each[place]]}
    numbers = {name: i for i, name in enumerate(names)}
    for group, together in mixed.items():
        stratum[group] = numbers.setdefault("\n".join(sorted(together)), len(numbers))
    return groups, stratum, list(numbers)
