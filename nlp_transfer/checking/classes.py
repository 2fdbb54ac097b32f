"""Classes that are rare, uneven, or look like slips of the pen; entities that train and test share."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable

from nlp_transfer.checking.findings import Finding, Parts, all_places, text_of
from nlp_transfer.data.cells import WRITTEN_LIST
from nlp_transfer.data.examples import TaggedExample
from nlp_transfer.data.folding import INVISIBLE, fold
from nlp_transfer.data.layouts import TAGGED
from nlp_transfer.errors import counted
from nlp_transfer.labels import spans_of

INVISIBLE_CHARACTER = re.compile(f"[{''.join(map(chr, INVISIBLE))}]")
LIST_MARK = re.compile("[,;|，]")
RARE = 5
"""Fewer examples teach next to nothing."""
UNEVEN = 100
"""The most frequent class has this many times the examples of the rarest one."""
MANY = 1000
"""More classes than this are hardly a classification."""
MANY_NAMES = 300
"""More are not compared by name, which would take their square."""
SLIP_SIMILARITY, SLIP_RATIO, RARE_SLIP_RATIO = 0.8, 20, 5
"""A name this near to one that is so many times as frequent is taken for a slip; fewer times where it is rare."""


def class_counts(parts: Parts) -> dict[str, Counter[str]]:
    """Of every part: how often each class occurs."""
    return {
        name: Counter({class_: count for class_, (count, _) in part.class_places().items()})
        for name, part in parts.items()
    }


def find_in_classes(parts: Parts) -> list[Finding]:
    is_ner = parts["train"].layout is TAGGED
    counts = class_counts(parts)
    train, whole = counts["train"], sum(counts.values(), Counter())
    findings = [too_few(train, is_ner=is_ner), rare(train), uneven(train)]
    findings += [] if is_ner else [lists(whole)]
    findings += [slips(whole)] if len(whole) <= MANY_NAMES else []
    findings += [too_many(train)] if len(whole) > MANY else []
    findings += [unseen(name, part, counts["train"]) for name, part in counts.items() if name != "train"]
    return [finding for finding in findings if finding.count]


def find_in_texts(parts: Parts) -> list[Finding]:
    """What takes a look at every text."""
    findings = [invisible(parts)]
    if parts["train"].layout is TAGGED:
        known = surfaces(parts["train"])
        findings += [seen_entities(name, part, known) for name, part in parts.items() if name != "train"]
    return [finding for finding in findings if finding.count]


def too_few(train: Counter[str], *, is_ner: bool) -> Finding:
    is_short = len(train) < (1 if is_ner else 2)
    what = (
        "holds no entity: every tag is O"
        if is_ner
        else f"has {counted(len(train), 'label')}, and needs two to tell apart"
    )
    return Finding(kind="too_few_classes", severity="error", count=int(is_short), message=f"The training part {what}.")


def lists(counts: Counter[str]) -> Finding:
    found = [
        name
        for name in counts
        if WRITTEN_LIST.fullmatch(name)
        or (LIST_MARK.search(name) and all(part.strip() in counts for part in LIST_MARK.split(name) if part.strip()))
    ]
    return Finding(
        kind="label_lists",
        severity="warning",
        count=len(found),
        message=f"{counted(len(found), 'label')} that look like lists of others. For several labels a text part "
        "them by commas and pass --multi-label, and --task.multi-label to a run.",
        places=all_places([f"'{name}'" for name in found]),
    )


def too_many(train: Counter[str]) -> Finding:
    return Finding(
        kind="many_classes",
        severity="warning",
        count=len(train),
        message=f"{counted(len(train), 'label')} in {train.total():,} examples. Is this the column of the labels?",
    )


def rare(train: Counter[str]) -> Finding:
    found = sorted((name for name, number in train.items() if number < RARE), key=lambda name: train[name])
    return Finding(
        kind="rare_classes",
        severity="warning",
        count=len(found),
        message=f"{counted(len(found), 'rare label')} with fewer than {RARE} examples in train.",
        places=all_places([f"'{name}' ({train[name]})" for name in found]),
    )


def uneven(train: Counter[str]) -> Finding:
    ordered = train.most_common()
    is_uneven = len(ordered) > 1 and ordered[0][1] >= UNEVEN * ordered[-1][1]
    return Finding(
        kind="uneven_classes",
        severity="note",
        count=int(is_uneven),
        message="The classes are very uneven. Look at macro_f1, and try --task.class-weights balanced.",
        places=all_places(
            [f"'{name}' ({number:,})" for name, number in (ordered[0], ordered[-1])] if is_uneven else []
        ),
    )


def slips(counts: Counter[str]) -> Finding:
    found = []
    for name, number in counts.items():
        ratio = RARE_SLIP_RATIO if number < RARE else SLIP_RATIO
        frequent = [other for other in counts if counts[other] >= ratio * number]
        swapped = [other for other in frequent if sorted(other) == sorted(name)]  # LCO for LOC
        for near in (swapped or difflib.get_close_matches(name, frequent, cutoff=SLIP_SIMILARITY))[:1]:
            found.append(f"'{name}' ({number:,}) near '{near}' ({counts[near]:,})")
    return Finding(
        kind="label_slips",
        severity="warning",
        count=len(found),
        message=f"{counted(len(found), 'label')} that may be slips of the pen.",
        places=all_places(found),
    )


def unseen(name: str, part: Counter[str], train: Counter[str]) -> Finding:
    found = sorted(set(part) - set(train))
    return Finding(
        kind="unseen_labels",
        severity="error",
        count=len(found),
        message=f"{counted(len(found), 'label')} of {name} missing from train: what is not there cannot be learned.",
        places=all_places([f"'{label}' ({part[label]:,})" for label in found]),
    )


def surfaces(examples: Iterable[TaggedExample]) -> Counter[str]:
    """Entities as they are written, folded."""
    found: Counter[str] = Counter()
    for example in examples:
        found.update(fold(" ".join(example.words[span.start : span.end])) for span in spans_of(example.tags))
    return found


def seen_entities(name: str, examples: Iterable[TaggedExample], known: Counter[str]) -> Finding:
    found = surfaces(examples)
    seen = sum(number for surface, number in found.items() if surface in known)
    share = seen / max(1, found.total())
    return Finding(
        kind="seen_entities",
        severity="note",
        count=seen,
        message=f"{seen:,} of the {found.total():,} entities of {name} ({share:.0%}) are written as one in train is. "
        "The rest shows what carries over.",
        places=all_places(surface for surface, _ in found.most_common() if surface in known),
    )


def invisible(parts: Parts) -> Finding:
    found = [
        example.source for part in parts.values() for example in part if INVISIBLE_CHARACTER.search(text_of(example))
    ]
    return Finding(
        kind="invisible_characters",
        severity="note",
        count=len(found),
        message=f"{counted(len(found), 'text')} with characters that cannot be seen, such as zero-width spaces.",
        places=all_places(found),
    )
