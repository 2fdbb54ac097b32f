"""A toy corpus that a tiny model can learn: sentences of very uneven length, and short reviews."""

from __future__ import annotations

import itertools
import os
import random
from pathlib import Path

import pytest

PEOPLE, PLACES, FIRMS = ("Ada", "Bob", "Carol Ann"), ("Paris", "London", "New York"), ("Acme Corp", "Globex")
PRAISE, BLAME = ("great", "lovely", "wonderful", "fine"), ("awful", "boring", "dreadful", "poor")
THINGS = ("film", "book", "song", "meal", "phone", "town", "game", "hotel", "story", "shoe", "chair", "trip")


REAL_DATA = Path(os.environ.get("NLP_TRANSFER_DATA", Path(__file__).parents[2] / "shared" / "data"))


def real_data(name: str) -> Path:
    """A folder of a public data set, for tests that are worth more on real text; skipped where it is absent."""
    folder = REAL_DATA / name
    if not folder.is_dir():
        pytest.skip(f"the data set {name} is not in {REAL_DATA} (set NLP_TRANSFER_DATA)")
    return folder


def tagged(text: str, label: str) -> list[tuple[str, str]]:
    return [(word, f"{'I' if i else 'B'}-{label}") for i, word in enumerate(text.split())]


def plain(text: str) -> list[tuple[str, str]]:
    return [(word, "O") for word in text.split()]


def make_sentences() -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Words and tags: from 3 to 31 words, so that a mean of micro-batch means is not the mean over words."""
    sentences = []
    for number, (person, place, firm) in enumerate(itertools.product(PEOPLE, PLACES, FIRMS)):
        short = tagged(person, "PER") + plain("left .")
        long = tagged(person, "PER") + plain("lives in") + tagged(place, "LOC") + plain("and works for")
        long += tagged(firm, "ORG") + plain("every day of the week " * (number % 5)) + plain(".")
        sentences += [short, long]
    random.Random(0).shuffle(sentences)
    return [(tuple(word for word, _ in pairs), tuple(tag for _, tag in pairs)) for pairs in sentences]


SENTENCES = make_sentences()
REVIEWS = [
    (f"{'really ' * (number % 4)}{word} {thing} {'indeed ' * (number % 3)}", label)
    for label, words in (("praise", PRAISE), ("blame", BLAME))
    for number, (word, thing) in enumerate(itertools.product(words, THINGS))
]


def write_conll(path: Path) -> Path:
    blocks = ["\n".join(f"{word} {tag}" for word, tag in zip(words, tags, strict=True)) for words, tags in SENTENCES]
    path.write_text("\n\n".join(blocks) + "\n")
    return path


def write_tsv(path: Path) -> Path:
    path.write_text("text\tlabel\n" + "".join(f"{text.strip()}\t{label}\n" for text, label in REVIEWS))
    return path
