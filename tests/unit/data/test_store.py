"""A store is the sequence of examples that was put into it."""

import random

import numpy as np
import pytest

import nlp_transfer as nt
from nlp_transfer.checking.copies import find_copies
from nlp_transfer.data.examples import Source
from nlp_transfer.data.store import ExampleStore


def text(i: int) -> nt.TextExample:
    labels = ("xyz"[i % 3],) if i % 4 else ("x", "y")
    return nt.TextExample(f"text {i}", labels, Source(f"f{i // 1500}.csv", i), None if i % 2 else "b")


def tagged(i: int) -> nt.TaggedExample:
    length = i % 7
    words = tuple(f"w{j}" for j in range(length))
    return nt.TaggedExample(words, TAGS[:length], Source("f", i), tuple(range(length)))


TAGS = ("O", "B-X", "I-X", "O", "B-Y", "O", "O")
TEXTS, TAGGED = list(map(text, range(3000))), list(map(tagged, range(3000)))


@pytest.mark.parametrize("examples", [TEXTS, TAGGED], ids=["texts", "tagged"])
def test_what_goes_in_comes_out_in_order(examples):
    store = ExampleStore.of(examples)
    assert list(store) == examples
    assert list(store.sources()) == [example.source for example in examples]
    assert [store[i] for i in (0, 1023, 1024, -1)] == [examples[i] for i in (0, 1023, 1024, -1)]


@pytest.mark.parametrize("seed", range(20))
def test_slices_and_views_are_those_of_a_list(seed):
    rng = random.Random(seed)
    store, wanted = ExampleStore.of(TEXTS), TEXTS
    for _ in range(3):
        third = len(wanted) // 3
        window = slice(rng.randint(0, third), rng.randint(2 * third, len(wanted)), rng.randint(1, 3))
        store, wanted = store[window], wanted[window]
        assert list(store) == wanted
        assert len(store) == len(wanted)
    places = np.array(sorted(rng.sample(range(len(wanted)), 5)))
    assert list(store.take(places)) == [wanted[i] for i in places]
    assert list(store.keys) == list(ExampleStore.of(wanted).keys)


def test_an_empty_view_is_empty():
    empty = ExampleStore.of(TEXTS)[5:5]
    assert (list(empty), len(empty.keys), empty.strata(), empty.label_places()) == ([], 0, ([], pytest.approx([])), {})


def test_a_view_out_of_order_is_refused():
    with pytest.raises(ValueError, match="must rise"):
        ExampleStore.of(TEXTS)[::-1]


def test_labels_are_counted_with_their_first_place():
    places = ExampleStore.of(TEXTS).label_places()
    wanted = [label for example in TEXTS for label in example.labels]
    assert {label: number for label, (number, _) in places.items()} == {label: wanted.count(label) for label in "xyz"}
    assert places["z"][1] == next(example.source for example in TEXTS if "z" in example.labels)
    tags = ExampleStore.of(TAGGED).class_places()
    assert tags["X"][0] == sum(example.tags.count("B-X") for example in TAGGED)


def test_merged_labels_count_once_a_text_and_do_not_contradict_themselves():
    texts = [nt.TextExample("a", ("Pos", "pos")), nt.TextExample("a", ("pos",)), nt.TextExample("b", ("neg",))]
    store = ExampleStore.of(texts).renamed({"Pos": "pos"})
    assert [example.labels for example in store] == [("pos",), ("pos",), ("neg",)]
    assert {label: number for label, (number, _) in store.label_places().items()} == {"pos": 2, "neg": 1}
    assert [finding.kind for finding in find_copies({"train": store})] == ["duplicates"]


def test_splits_made_of_lists_serve_a_task():
    splits = nt.Splits(TEXTS[1:4], TEXTS[5:7], None)
    assert nt.TextClassification.for_splits(splits, nt.TextClassificationConfig()).labels.names == ("x", "y", "z")
