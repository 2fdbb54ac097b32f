"""Texts that are almost the same: found by minhashing (Broder, 1997) with bands, and then compared.

Near copies share most of their pairs of neighbouring words.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, pairwise
from typing import Any

import numpy as np

from nlp_transfer.checking.findings import Finding, Parts, Severity, all_places, sources_of, text_of
from nlp_transfer.data.examples import IntArray
from nlp_transfer.data.folding import fold
from nlp_transfer.data.store import Keys
from nlp_transfer.errors import counted
from nlp_transfer.reporting.progress import progress_bar

NEAR = 0.8
"""Jaccard similarity of their pairs of neighbouring words, from which on two texts are near copies."""
MIN_WORDS = 6
"""Shorter texts resemble each other by chance."""
NUM_HASHES, ROWS_A_BAND = 48, 4
NEIGHBOURS = 4
"""Of texts that fall together, each is compared with so many of the ones before it, and with the first."""
PAIRS_AT_ONCE = 50_000
CHUNK_TEXTS, CHUNK_PAIRS = 1024, 50_000
WORD = re.compile(r"\w+")
PRIME = np.uint64((1 << 61) - 1)
MIX = np.uint64(0x9E3779B97F4A7C15)
Bands = np.ndarray[Any, np.dtype[np.uint64]]
Pairs = np.ndarray[Any, np.dtype[np.int64]]


def find_near_copies(parts: Parts) -> list[Finding]:
    """Near copies, copies excluded, inside train and between train and the others."""
    keys = np.concatenate([part.keys for part in parts.values()])
    names = list(parts)
    part_of = np.repeat(np.arange(len(parts)), [len(part) for part in parts.values()])
    train = names.index("train")
    pairs = candidates(band_hashes(parts, len(keys)))
    of_train = (part_of[pairs] == train).any(axis=1)
    near = similar(parts, pairs[of_train & (keys[pairs[:, 0]] != keys[pairs[:, 1]])])
    crosses = part_of[near[:, 0]] != part_of[near[:, 1]]
    across = np.where((part_of[near[:, :1]] == train), near[:, ::-1], near)[crosses]
    findings = [
        finding("warning", "of the other parts that differ by a few words from one of train", across, parts),
        finding("note", "of train that differ by a few words from an earlier one", near[~crosses][:, ::-1], parts),
    ]
    return [finding for finding in findings if finding.count]


def finding(severity: Severity, what: str, pairs: Pairs, parts: Parts) -> Finding:
    """``pairs``: a text, and the one it is like."""
    texts, which = np.unique(pairs[:, 0], return_index=True)
    sources = sources_of(parts) if len(texts) else []
    return Finding(
        kind="near_duplicates",
        severity=severity,
        count=len(texts),
        message=f"{counted(len(texts), 'text')} {what}.",
        places=all_places(f"{sources[one]} like {sources[other]}" for one, other in pairs[which].tolist()),
    )


def pairs_of_words(text: str) -> frozenset[int]:
    words = WORD.findall(fold(text))
    if len(words) < MIN_WORDS:
        return frozenset()
    return frozenset(zlib.crc32(f"{a} {b}".encode()) for a, b in pairwise(words))


def band_hashes(parts: Parts, num_texts: int) -> Bands:
    """Of each text, one number a band; shape ``(texts, bands)``, 0 in all of them for short texts."""
    rng = np.random.default_rng(0)
    factors = rng.integers(1, 2**32, NUM_HASHES, dtype=np.uint64)
    offsets = rng.integers(0, 2**32, NUM_HASHES, dtype=np.uint64)
    bands = np.zeros((num_texts, NUM_HASHES // ROWS_A_BAND), dtype=np.uint64)
    start = 0
    with progress_bar("looking for near copies", num_texts) as bar:
        for shingles in chunks(map(pairs_of_words, map(text_of, chain.from_iterable(parts.values())))):
            filled = [i for i, shingle in enumerate(shingles) if shingle]
            if filled:
                least = least_hashes([shingles[i] for i in filled], factors, offsets)
                bands[start + np.array(filled)] = mixed(least)
            start += len(shingles)
            bar.advance(len(shingles))
    return bands


def chunks(shingles: Iterable[frozenset[int]]) -> Iterator[list[frozenset[int]]]:
    """Of so many word pairs that their hashes fit well into memory, whatever the length of the texts."""
    chunk: list[frozenset[int]] = []
    size = 0
    for shingle in shingles:
        chunk.append(shingle)
        size += len(shingle)
        if size >= CHUNK_PAIRS or len(chunk) >= CHUNK_TEXTS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def least_hashes(shingles: Sequence[frozenset[int]], factors: Keys, offsets: Keys) -> Keys:
    """Shape ``(texts, hashes)``."""
    sizes = np.array([len(shingle) for shingle in shingles])
    values = np.fromiter(chain.from_iterable(shingles), dtype=np.uint64, count=int(sizes.sum()))
    hashes = (np.outer(factors, values) + offsets[:, None]) % PRIME
    return np.minimum.reduceat(hashes, np.cumsum(sizes) - sizes, axis=1).T


def mixed(least: Keys) -> Bands:
    """The hashes of each band as one number."""
    rows = least.reshape(len(least), -1, ROWS_A_BAND)
    found = np.zeros(rows.shape[:2], dtype=np.uint64)
    for i in range(ROWS_A_BAND):
        found = (found ^ rows[:, :, i]) * MIX
    return found


def candidates(bands: Bands) -> Pairs:
    """Pairs that agree in a band, the earlier text first; a few of a large bucket, so that it costs no square."""
    long = np.flatnonzero(bands.any(axis=1))
    found = [np.zeros((0, 2), dtype=np.int64)]
    for band in bands[long].T:
        order = np.argsort(band, kind="stable")
        starts = np.flatnonzero(np.r_[True, band[order][1:] != band[order][:-1]]) if len(order) else order
        bucket = np.repeat(starts, np.diff(np.r_[starts, len(order)]))
        place_in_order = np.arange(len(order))
        for earlier in [*(place_in_order - step for step in range(1, NEIGHBOURS + 1)), bucket]:
            together = (earlier >= bucket) & (earlier < place_in_order)
            found.append(long[np.stack([order[earlier[together]], order[together]], axis=1)])
    return np.unique(np.concatenate(found), axis=0)


def similar(parts: Parts, pairs: Pairs) -> Pairs:
    """Those of ``pairs`` that are near copies."""
    is_near = [
        shares_most(shingles[one], shingles[other])
        for block in blocks(pairs)
        for shingles in [shingles_of(parts, np.unique(block))]
        for one, other in block.tolist()
    ]
    found: Pairs = pairs[np.array(is_near, dtype=bool)]
    return found


def blocks(pairs: Pairs) -> Iterator[Pairs]:
    return (pairs[start : start + PAIRS_AT_ONCE] for start in range(0, len(pairs), PAIRS_AT_ONCE))


def shingles_of(parts: Parts, numbers: IntArray) -> dict[int, frozenset[int]]:
    """By the number of the text, counted through all parts."""
    found: dict[int, frozenset[int]] = {}
    start = 0
    for part in parts.values():
        own = numbers[(numbers >= start) & (numbers < start + len(part))]
        for number, example in zip(own.tolist(), part.take(own - start), strict=True):
            found[number] = pairs_of_words(text_of(example))
        start += len(part)
    return found


def shares_most(one: frozenset[int], other: frozenset[int]) -> bool:
    return len(one & other) >= NEAR * len(one | other)
