"""Texts that stand twice: inside a part, in two parts, or with two labels.

A copy is equal up to case, blanks and the forms that Unicode takes for the same (NFKC).
"""

from __future__ import annotations

import numpy as np

from nlp_transfer.checking.findings import MAX_PLACES, Finding, Parts, first_places
from nlp_transfer.data.examples import IntArray, Source
from nlp_transfer.data.splits import LEAKAGE_ALLOWED, copies_of
from nlp_transfer.data.store import Keys
from nlp_transfer.errors import counted


def find_copies(parts: Parts) -> list[Finding]:
    """Copies inside each part, and copies with different labels."""
    findings = [*(inside(name, parts) for name in parts), contradictions(parts)]
    return [finding for finding in findings if finding.count]


def find_leaks(parts: Parts, *, allow_leakage: bool) -> list[Finding]:
    """Copies between train and the others, and between the others."""
    pairs = (("test", "train"), ("validation", "train"), ("test", "validation"))
    named = [(name, known) for name, known in pairs if name in parts and known in parts]
    findings = [leaked(name, known, parts, allow_leakage=allow_leakage) for name, known in named]
    return [finding for finding in findings if finding.count]


def inside(name: str, parts: Parts) -> Finding:
    part = parts[name]
    first = first_of_copies(part.keys)
    copies = np.flatnonzero(first != np.arange(len(first)))
    return Finding(
        kind="duplicates",
        severity="note",
        count=len(copies),
        message=f"{counted(len(copies), 'example')} of {name} repeated: copies of earlier ones.",
        places=first_places(f"{part[i].source} as {part[int(first[i])].source}" for i in copies[:MAX_PLACES].tolist()),
    )


def leaked(name: str, known: str, parts: Parts, *, allow_leakage: bool) -> Finding:
    """Between validation and test a warning: it is the choice of the epoch that leaks then, not the learning."""
    part, others = parts[name], parts[known]
    found = copies_of(others, part)
    share = len(found) / len(part)
    too_many = known == "train" and share > LEAKAGE_ALLOWED and not allow_leakage
    advice = "Delete them from train, or pass --allow-leakage." if too_many else "Scores are a little too high for it."
    return Finding(
        kind="leakage",
        severity="error" if too_many else "warning",
        count=len(found),
        message=f"{counted(len(found), 'example')} of {name} ({share:.1%}) found in {known}, too. {advice}",
        places=first_places(
            f"{part[i].source} as {others[int(np.argmax(others.keys == part.keys[i]))].source}"
            for i in found[:MAX_PLACES].tolist()
        ),
    )


def contradictions(parts: Parts) -> Finding:
    """The same text with different labels: at least one of them is wrong, or the text does not decide."""
    first = first_of_copies(np.concatenate([part.keys for part in parts.values()]))
    labels = np.concatenate([part.label_keys() for part in parts.values()])
    others = np.flatnonzero(labels != labels[first])
    texts, which = np.unique(first[others], return_index=True)
    pairs = zip(others[which].tolist(), texts.tolist(), strict=True)
    return Finding(
        kind="contradictions",
        severity="warning",
        count=len(texts),
        message=f"{counted(len(texts), 'text')} with different labels in different places. Decide, or delete them.",
        places=first_places(f"{place(parts, other)} against {place(parts, one)}" for other, one in pairs),
    )


def first_of_copies(keys: Keys) -> IntArray:
    """Of each example: where its text first stands."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    found: IntArray = first[inverse]
    return found


def place(parts: Parts, number: int) -> Source:
    """Where the example stands that has this number, counted through all parts."""
    for part in parts.values():
        if number < len(part):
            source: Source = part[number].source
            return source
        number -= len(part)
    raise IndexError(number)
