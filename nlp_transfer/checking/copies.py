"""Texts that stand twice: inside a part, in two parts, with two labels, or almost.

A copy is equal up to case, blanks and the forms that Unicode takes for the same (NFKC). Near copies share most of their
word pairs: found by minhashing (Broder, 1997) with bands, and then compared.
"""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from nlp_transfer.checking.findings import PAIR_MARK, Finding, Item, Parts, Severity, first_places
from nlp_transfer.data.folding import fold
from nlp_transfer.errors import counted

LEAKAGE_ALLOWED = 0.01
"""Share of a part that may also stand in train before it is an error."""
NEAR = 0.8
"""Jaccard similarity of their pairs of neighbouring words, from which on two texts are near copies."""
MIN_WORDS = 6
"""Shorter texts resemble each other by chance."""
NUM_HASHES, ROWS_A_BAND = 48, 4
WORD = re.compile(r"\w+")
Places = dict[tuple[str, ...], list[Item]]
"""The items of every text, by its folded form; of pairs, by both."""
PRIME = np.uint64((1 << 61) - 1)


def find_copies(parts: Parts, *, allow_leakage: bool) -> list[Finding]:
    """Copies inside each part, between train and the others, and copies with different labels."""
    places: dict[str, Places] = {name: defaultdict(list) for name in parts}
    for name, items in parts.items():
        for item in items:
            places[name][tuple(map(fold, item.text.split(PAIR_MARK)))].append(item)
    findings = [inside(name, texts) for name, texts in places.items()]
    for name, known in (("test", "train"), ("validation", "train"), ("test", "validation")):
        if name in places and known in places:
            findings.append(leaked(name, places[name], known, places[known], allow_leakage=allow_leakage))
    return [finding for finding in [*findings, contradictions(places)] if finding.count]


def inside(name: str, texts: Places) -> Finding:
    groups = [group for group in texts.values() if len(group) > 1]
    extra = sum(len(group) - 1 for group in groups)
    return Finding(
        kind="duplicates",
        severity="note",
        count=extra,
        message=f"{counted(extra, 'example')} of {name} repeated: copies of earlier ones.",
        places=first_places([f"{group[1].source} as {group[0].source}" for group in groups]),
    )


def leaked(name: str, texts: Places, known: str, others: Places, *, allow_leakage: bool) -> Finding:
    """Between validation and test a warning: it is the choice of the epoch that leaks then, not the learning."""
    found = [(item, others[text][0]) for text, group in texts.items() if text in others for item in group]
    share = len(found) / max(1, sum(map(len, texts.values())))
    too_many = known == "train" and share > LEAKAGE_ALLOWED and not allow_leakage
    advice = "Delete them from train, or pass --allow-leakage." if too_many else "Scores are a little too high for it."
    return Finding(
        kind="leakage",
        severity="error" if too_many else "warning",
        count=len(found),
        message=f"{counted(len(found), 'example')} of {name} ({share:.1%}) found in {known}, too. {advice}",
        places=first_places([f"{item.source} as {other.source}" for item, other in found]),
    )


def contradictions(places: dict[str, Places]) -> Finding:
    """The same text with different labels: at least one of them is wrong, or the text does not decide."""
    together: Places = defaultdict(list)
    for texts in places.values():
        for text, group in texts.items():
            together[text] += group
    pairs = [
        (group[0], other)
        for group in together.values()
        if (other := next((item for item in group if item.labels != group[0].labels), None))
    ]
    return Finding(
        kind="contradictions",
        severity="warning",
        count=len(pairs),
        message=f"{counted(len(pairs), 'text')} with different labels in different places. Decide, or delete them.",
        places=first_places([f"{other.source} against {one.source}" for one, other in pairs]),
    )


def find_near_copies(parts: Parts) -> list[Finding]:
    """Near copies, copies excluded, inside train and between train and the others."""
    flat = [(name, item) for name, items in parts.items() for item in items]
    shingles = [pairs_of_words(item.text) for _, item in flat]
    crossing: list[str] = []
    within: list[str] = []
    for one, other in sorted(candidates(shingles)):
        names = {flat[one][0], flat[other][0]}
        if "train" not in names or fold(flat[one][1].text) == fold(flat[other][1].text):
            continue
        if similarity(shingles[one], shingles[other]) >= NEAR:
            (crossing if len(names) > 1 else within).append(f"{flat[other][1].source} like {flat[one][1].source}")
    findings = [near("warning", "of train and another part", crossing), near("note", "of train", within)]
    return [finding for finding in findings if finding.count]


def near(severity: Severity, where: str, found: list[str]) -> Finding:
    return Finding(
        kind="near_duplicates",
        severity=severity,
        count=len(found),
        message=f"{counted(len(found), 'pair')} of texts {where} with a few words of difference.",
        places=first_places(found),
    )


def pairs_of_words(text: str) -> frozenset[int]:
    words = WORD.findall(fold(text))
    if len(words) < MIN_WORDS:
        return frozenset()
    return frozenset(zlib.crc32(f"{a} {b}".encode()) for a, b in pairwise(words))


def similarity(one: frozenset[int], other: frozenset[int]) -> float:
    return len(one & other) / len(one | other)


def candidates(shingles: list[frozenset[int]]) -> set[tuple[int, int]]:
    """Pairs that agree in all hashes of a band; neighbours in a bucket only, so that its size costs no square."""
    rng = np.random.default_rng(0)
    factors = rng.integers(1, 2**32, NUM_HASHES, dtype=np.uint64)
    offsets = rng.integers(0, 2**32, NUM_HASHES, dtype=np.uint64)
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for number, shingle in enumerate(shingles):
        if shingle:
            values = np.fromiter(shingle, dtype=np.uint64, count=len(shingle))
            least = ((np.outer(factors, values) + offsets[:, None]) % PRIME).min(axis=1)
            for band in range(0, NUM_HASHES, ROWS_A_BAND):
                buckets[band, least[band : band + ROWS_A_BAND].tobytes()].append(number)
    return {pair for bucket in buckets.values() for pair in neighbours(bucket)}


def neighbours(bucket: list[int]) -> Iterator[tuple[int, int]]:
    yield from pairwise(bucket)
    yield from ((bucket[0], other) for other in bucket[2:])
