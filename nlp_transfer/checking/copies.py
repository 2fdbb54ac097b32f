"""Texts that stand twice: inside a part, in two parts, or with two labels.

A copy is equal up to case, blanks and the forms that Unicode takes for the same (NFKC).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nlp_transfer.checking.findings import Finding, Parts, all_places, sources_of
from nlp_transfer.data.examples import IntArray
from nlp_transfer.data.splits import LEAKAGE_ALLOWED, copies_of
from nlp_transfer.data.store import ExampleStore, Keys
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
        places=pairs_of_places(part, copies, " as ", part, first[copies]),
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
        places=pairs_of_places(part, found, " as ", others, first_places_of(part.keys[found], others.keys)),
    )


def contradictions(parts: Parts) -> Finding:
    """The same text with different labels: at least one of them is wrong, or the text does not decide."""
    first = first_of_copies(np.concatenate([part.keys for part in parts.values()]))
    labels = np.concatenate([part.label_keys() for part in parts.values()])
    others = np.flatnonzero(labels != labels[first])
    texts, which = np.unique(first[others], return_index=True)
    pairs = zip(others[which].tolist(), texts.tolist(), strict=True)
    sources = sources_of(parts) if len(texts) else []
    return Finding(
        kind="contradictions",
        severity="warning",
        count=len(texts),
        message=f"{counted(len(texts), 'text')} with different labels in different places. Decide, or delete them.",
        places=all_places(f"{sources[other]} against {sources[one]}" for other, one in pairs),
    )


def pairs_of_places(
    part: ExampleStore[Any], places: IntArray, words: str, others: ExampleStore[Any], theirs: IntArray
) -> tuple[str, ...]:
    """Each of ``places`` in ``part`` beside the one of ``theirs`` in ``others``."""
    distinct, inverse = np.unique(theirs, return_inverse=True)
    known = list(others.take(distinct).sources())
    pairs = zip(part.take(places).sources(), inverse.tolist(), strict=True)
    return tuple(f"{source}{words}{known[other]}" for source, other in pairs)


def first_places_of(keys: Keys, others: Keys) -> IntArray:
    """Where each of ``keys``, all of which stand in ``others``, first stands there."""
    distinct, first = np.unique(others, return_index=True)
    found: IntArray = first[np.searchsorted(distinct, keys)]
    return found


def first_of_copies(keys: Keys) -> IntArray:
    """Of each example: where its text first stands."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    found: IntArray = first[inverse]
    return found
