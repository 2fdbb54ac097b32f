"""Hold out validation and test parts: stratified, seeded, duplicates kept on one side."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence

from nlp_transfer.data.examples import Example, Splits
from nlp_transfer.data.notes import Notes
from nlp_transfer.errors import DataError

HELD_OUT_FRACTION = 0.1
MIN_EXAMPLES = 10
"""Fewer leave nothing to learn from and nothing to judge by."""


def complete(
    train: Sequence[Example],
    validation: Sequence[Example] | None,
    test: Sequence[Example] | None,
    *,
    seed: int,
    key: Callable[[Example], Hashable],
    stratum: Callable[[Example], str],
    notes: Notes,
) -> Splits[Example]:
    """Take the parts that were not named out of the training part, a tenth of it each.

    ``key`` is equal for duplicates; ``stratum`` names the group whose share is kept. A test part is held out only when
    no validation part was named either: who names just a validation part wants to be judged by it.
    """
    wanted = [] if validation is not None else ["validation", *(["test"] if test is None else [])]
    if wanted and len(train) < MIN_EXAMPLES:
        raise DataError(
            f"{train[0].source.file} holds {len(train)} examples; holding out a {' and a '.join(wanted)} part takes at "
            f"least {MIN_EXAMPLES}. Name the parts with --validation and --test."
        )
    held_out: dict[str, list[str]] = {}
    parts = {"validation": validation, "test": test}
    rest, count = train, round(len(train) * HELD_OUT_FRACTION)
    for name in reversed(wanted):
        rest, part = hold_out(rest, count, random.Random(f"{seed} {name}"), key, stratum)
        if not part:
            raise DataError(
                f"{train[0].source.file}: no {name} part can be held out, since every class has only one distinct "
                f"example. Name the part with --{name}."
            )
        parts[name] = part
        held_out[name] = [str(example.source) for example in part]
    known = {key(example) for example in train}
    for name in ("validation", "test"):
        for example in parts[name] or () if name not in held_out else ():
            if key(example) in known:
                notes.count(
                    f"Examples of {name} that also stand in train, which makes its score too high", example.source
                )
    for name, where in held_out.items():
        notes.say(f"{len(where)} examples of {train[0].source.file} held out as {name} (seed {seed}).")
    return Splits(rest, parts["validation"] or (), parts["test"], notes.lines(), held_out or None)


def hold_out(
    examples: Sequence[Example],
    count: int,
    rng: random.Random,
    key: Callable[[Example], Hashable],
    stratum: Callable[[Example], str],
) -> tuple[list[Example], list[Example]]:
    """(rest, held out): about ``count`` examples, of every stratum its share, but never all of a stratum."""
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for i, example in enumerate(examples):
        groups[key(example)].append(i)
    strata: dict[str, list[list[int]]] = defaultdict(list)
    for group in groups.values():
        strata["\n".join(sorted({stratum(examples[i]) for i in group}))].append(group)

    taken: set[int] = set()
    share, owed = count / len(examples), 0.0
    for name in sorted(strata):
        members = strata[name]
        owed += share * sum(map(len, members))  # what one stratum falls short, the next makes up for
        for group in rng.sample(members, len(members))[:-1]:
            if owed < len(group) / 2:
                continue  # too many copies of one text; a smaller group may still fit
            taken.update(group)
            owed -= len(group)
    rest = [example for i, example in enumerate(examples) if i not in taken]
    return rest, [example for i, example in enumerate(examples) if i in taken]
