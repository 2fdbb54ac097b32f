"""The tags of a text are the most probable of all legal sequences."""

import itertools

import numpy as np
import pytest

from nlp_transfer.labels import LabelSet, split_tag
from nlp_transfer.tasks.ner import best_legal_tags

ONE_TYPE, TWO_TYPES = LabelSet.for_tags(["X"]), LabelSet.for_tags(["X", "Y"])


def legal(names: tuple[str, ...] | list[str]) -> bool:
    """``I-X`` stands only after ``B-X`` or ``I-X``."""
    pairs = zip(["O", *names], names, strict=False)
    return all(split_tag(tag)[0] != "I" or before in (tag, f"B{tag[1:]}") for before, tag in pairs)


def log_probability(rows: np.ndarray, ids: tuple[int, ...] | list[int]) -> float:
    return float(np.log(np.maximum(rows, np.finfo(np.float32).tiny))[range(len(rows)), list(ids)].sum(dtype=np.float64))


def best_by_trying_all(rows: np.ndarray, labels: LabelSet) -> tuple[int, ...]:
    every = itertools.product(range(len(labels)), repeat=len(rows))
    allowed = (ids for ids in every if legal([labels.names[i] for i in ids]))
    return max(allowed, key=lambda ids: log_probability(rows, ids))


def draw(rng: np.random.Generator, num_words: int, num_labels: int) -> np.ndarray:
    return rng.dirichlet(np.full(num_labels, 0.4), size=num_words).astype(np.float32)


@pytest.mark.parametrize(
    ("labels", "num_words", "repeats"), [(ONE_TYPE, 1, 30), (ONE_TYPE, 5, 30), (TWO_TYPES, 2, 30), (TWO_TYPES, 4, 30)]
)
def test_no_legal_sequence_is_more_probable(labels, num_words, repeats):
    rng = np.random.default_rng(num_words)
    for _ in range(repeats):
        rows = draw(rng, num_words, len(labels))
        ids = best_legal_tags(rows)
        assert legal([labels.names[i] for i in ids])
        assert log_probability(rows, ids) == pytest.approx(log_probability(rows, best_by_trying_all(rows, labels)))


def test_long_texts_get_one_legal_tag_for_every_word():
    ids = best_legal_tags(draw(np.random.default_rng(0), 2000, len(TWO_TYPES)))
    assert len(ids) == 2000
    assert legal([TWO_TYPES.names[i] for i in ids])


def test_legal_sequences_are_left_as_they_are():
    rng = np.random.default_rng(0)
    drawn = [draw(rng, 4, len(TWO_TYPES)) for _ in range(200)]
    most_probable = [(rows, rows.argmax(axis=1).tolist()) for rows in drawn]
    already_legal = [(rows, ids) for rows, ids in most_probable if legal([TWO_TYPES.names[i] for i in ids])]
    assert already_legal
    assert all(best_legal_tags(rows) == ids for rows, ids in already_legal)


@pytest.mark.parametrize("num_words", [0, 1, 3])
def test_certain_tags_of_probability_0_and_1_are_no_trouble(num_words):
    rows = np.zeros((num_words, len(TWO_TYPES)), dtype=np.float32)
    rows[:, 2] = 1.0  # I-X, which may not stand first
    assert legal([TWO_TYPES.names[i] for i in best_legal_tags(rows)])
    assert len(best_legal_tags(rows)) == num_words
