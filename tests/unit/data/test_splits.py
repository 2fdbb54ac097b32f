"""Held-out parts: seeded, stratified, without loss and without leaks."""

import itertools
from collections import Counter
from collections.abc import Sequence

import pytest

from nlp_transfer.data.config import NerData, TextData
from nlp_transfer.data.examples import Source, TaggedExample, TextExample
from nlp_transfer.data.folding import fold
from nlp_transfer.data.notes import Notes
from nlp_transfer.data.reading import read_ner, read_text_classification
from nlp_transfer.data.splits import Splits, complete
from nlp_transfer.data.store import ExampleStore
from nlp_transfer.errors import DataError

SEEDS = range(20)
ONE_CLASS_EACH = [(f"text {i}", f"class {i}") for i in range(20)]
ONE_TEXT = [(" Same  Text" if i % 2 else "same text", f"class {i % 2}") for i in range(20)]


def make(pairs: Sequence[tuple[str, str]]) -> list[TextExample]:
    return [TextExample(text, (label,), Source("all.csv", line)) for line, (text, label) in enumerate(pairs, start=2)]


def uneven_classes() -> list[TextExample]:
    sizes = {"common": 140, "usual": 50, "rare": 8, "twice": 2, "once": 1}
    return make([(f"{label} {i}", label) for label, size in sizes.items() for i in range(size)])


def split(
    train: Sequence[TextExample],
    validation: Sequence[TextExample] | None = None,
    test: Sequence[TextExample] | None = None,
    seed: int = 0,
) -> Splits[TextExample]:
    named = {"train": train, "validation": validation, "test": test}
    parts = {name: ExampleStore.of(part) for name, part in named.items() if part is not None}
    return complete(parts, seed=seed, allow_leakage=False, notes=Notes())


def classes(part: Sequence[TextExample]) -> Counter[str]:
    return Counter(label for example in part for label in example.labels)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_or_doubled(seed):
    examples = uneven_classes()
    parts = split(examples, seed=seed)
    together = [*parts.train, *parts.validation, *parts.test]
    assert sorted(together, key=lambda e: e.source.line) == examples
    assert [e.source.line for e in parts.train] == sorted(e.source.line for e in parts.train)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_tenth_each_is_held_out_and_every_class_keeps_its_share(seed):
    parts = split(uneven_classes(), seed=seed)
    for part in (parts.validation, parts.test):
        assert len(part) == pytest.approx(20, abs=2)
        assert classes(part)["common"] == pytest.approx(14, abs=1)
        assert classes(part)["usual"] == pytest.approx(5, abs=1)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("smallest", [1, 2, 3])
def test_no_class_vanishes_from_train(seed, smallest):
    examples = [*uneven_classes(), *make([(f"text {i}", f"class {i // smallest}") for i in range(60)])]
    assert set(classes(split(examples, seed=seed).train)) == set(classes(examples))


@pytest.mark.parametrize("seed", SEEDS)
def test_no_class_vanishes_from_train_when_its_text_also_has_another_label(seed):
    examples = make([*((f"text {i}", "common") for i in range(30)), ("TEXT 3", "rare")])
    assert classes(split(examples, seed=seed).train)["rare"] == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_duplicates_up_to_case_and_blanks_stay_on_one_side(seed):
    spellings = ("Good film {}", "good  film {}", " GOOD FILM\t{} ")
    examples = make([(spelling.format(i), f"class {i % 2}") for i in range(40) for spelling in spellings])
    parts = split(examples, seed=seed)
    texts = [{fold(example.text) for example in part} for _, part in parts.parts().items()]
    assert sum(map(len, texts)) == len(set.union(*texts)) == 40
    assert len(parts.validation) == pytest.approx(12, abs=3)


def test_pairs_are_duplicates_only_when_both_texts_are(tmp_path):
    path = tmp_path / "pairs.tsv"
    rows = [f"same premise\thypothesis {i}\t{'yes' if i % 2 else 'no'}" for i in range(40)]
    path.write_text("\n".join(["premise\thypothesis\tlabel", *rows]))
    parts = read_text_classification(TextData(train=str(path)))
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (32, 4, 4)


def test_the_seed_alone_decides_what_is_held_out():
    examples = uneven_classes()
    drawn = [[tuple(part) for _, part in split(examples, seed=seed).parts().items()] for seed in (*SEEDS, *SEEDS)]
    assert drawn[: len(SEEDS)] == drawn[len(SEEDS) :]
    assert len({parts[-1] for parts in drawn}) == len(SEEDS)


def test_held_out_examples_are_written_down():
    parts = split(uneven_classes(), seed=3)
    assert parts.held_out == {
        "test": [str(example.source) for example in parts.test],
        "validation": [str(example.source) for example in parts.validation],
    }
    assert f"{len(parts.test)} examples of all.csv held out as test (seed 3)." in parts.notes
    assert f"{len(parts.validation)} examples of all.csv held out as validation (seed 3)." in parts.notes


@pytest.mark.parametrize(
    ("validation", "test", "held_out"),
    [(False, False, ["test", "validation"]), (True, False, []), (False, True, ["validation"]), (True, True, [])],
    ids=["neither named", "validation named", "test named", "both named"],
)
def test_only_what_is_not_named_is_held_out(validation, test, held_out):
    other = make([("another text", "common")])
    train = uneven_classes()
    parts = split(train, other if validation else None, other if test else None)
    assert list(parts.held_out or {}) == held_out
    assert parts.scored[0] == ("validation" if validation and not test else "test")
    if not held_out:
        assert list(parts.train) == train


def test_a_part_that_is_named_does_not_change_the_other_one_held_out():
    train, other = uneven_classes(), make([("another text", "common")])
    assert list(split(train, test=other).validation) == list(split(train, test=other * 2).validation)


@pytest.mark.parametrize("examples", [make(ONE_CLASS_EACH), make(ONE_TEXT)], ids=["one a class", "one text"])
def test_a_part_is_never_silently_empty(examples):
    with pytest.raises(DataError, match=r"all\.csv"):
        split(examples)


def test_too_few_examples_are_not_split():
    with pytest.raises(DataError, match=r"^all\.csv holds 9 examples.* --validation and --test"):
        split(make(ONE_CLASS_EACH[:9]))


@pytest.mark.parametrize("count", [10, 11, 15, 20])
def test_the_smallest_sets_give_something_to_every_part(count):
    parts = split(make([(f"text {i}", f"class {i % 2}") for i in range(count)]))
    assert all(len(part) >= 1 for _, part in parts.parts().items())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("common", ["a", "zz"])
def test_classes_of_one_example_each_take_nothing_from_the_others(seed, common):
    """In whatever order they come."""
    alone = [(f"alone {i}", f"b{i}") for i in range(100)]
    parts = split(make([*alone, *((f"{common} {i}", common) for i in range(20))]), seed=seed)
    for part in (parts.validation, parts.test):
        assert 1 <= classes(part)[common] <= 3
        assert len(part) == classes(part)[common]


@pytest.mark.parametrize("seed", range(5))
def test_of_texts_that_stand_many_times_about_a_tenth_is_held_out_too(seed):
    copied = [(f"text {i} of {label}", f"b{label:02}") for label in range(25) for i in (0, 1) for _ in range(20)]
    parts = split(make(copied + [(f"ordinary {i}", "a") for i in range(20)]), seed=seed)
    for part in (parts.validation, parts.test):
        assert len(part) == pytest.approx(102, abs=20)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("common", ["a", "zz"])
def test_sets_of_labels_that_stand_once_are_held_out_beside_those_that_stand_often(seed, common):
    pairs = itertools.islice(itertools.combinations([f"l{i:02}" for i in range(30)], 2), 400)
    sets = [tuple(chosen) for chosen in pairs] + [(common,)] * 100
    texts = [TextExample(f"text {i}", labels, Source("all.csv", i)) for i, labels in enumerate(sets)]
    parts = split(texts, seed=seed)
    for part in (parts.validation, parts.test):
        assert len(part) == 50
        assert classes(part)[common] == pytest.approx(10, abs=2)
    assert set(classes(parts.train)) == {label for labels in sets for label in labels}


@pytest.mark.parametrize("seed", range(5))
def test_texts_that_bear_types_in_ever_other_combinations_are_held_out_too(tmp_path, seed):
    path = tmp_path / "all.conll"
    types = [f"T{i}" for i in range(6)]
    sets = [chosen for size in (2, 3) for chosen in itertools.combinations(types, size)]
    path.write_text("\n\n".join("\n".join(f"w{i}{t} B-{t}" for t in chosen) for i, chosen in enumerate(sets)))
    parts = read_ner(NerData(train=str(path)), seed=seed)
    assert [len(part) for part in parts.parts().values()] == [len(sets) - 8, 4, 4]
    assert set(parts.train.class_places()) == set(types)


@pytest.mark.parametrize("seed", range(5))
def test_no_entity_type_vanishes_from_train(tmp_path, seed):
    path = tmp_path / "all.conll"
    types = ["PER"] * 30 + ["LOC"] * 10 + ["geo-loc"] * 2 + ["RARE"]
    path.write_text("\n\n".join(f"word{i} B-{type_}\nmore O" for i, type_ in enumerate(types)))
    parts = read_ner(NerData(train=str(path)), seed=seed)
    assert {tag for example in parts.train for tag in example.tags} == {"O", *(f"B-{type_}" for type_ in types)}
    examples: list[TaggedExample] = [example for _, part in parts.parts().items() for example in part]
    assert sorted(example.source.line for example in examples) == list(range(1, 3 * len(types), 3))


LEAKING = {"train": ["a b", "c", "d"], "test": ["e", "A  b", "c"]}


def write_leaking(folder):
    for name, texts in LEAKING.items():
        rows = "".join(f"{text},{'xy'[i % 2]}\n" for i, text in enumerate(texts))
        (folder / f"{name}.csv").write_text("text,label\n" + rows)
    return {"train": str(folder / "train.csv"), "validation": str(folder / "test.csv")}


@pytest.mark.parametrize("part", ["validation", "test"])
def test_examples_that_also_stand_in_train_are_refused_where_they_are_many(tmp_path, part):
    files = write_leaking(tmp_path) | {part: str(tmp_path / "test.csv")}
    with pytest.raises(DataError, match=r"test\.csv:3: 2 examples of \w+ \(66\.7%\), .* --allow-leakage"):
        read_text_classification(TextData(**files))


def test_examples_that_also_stand_in_train_are_counted_where_they_are_allowed(tmp_path):
    notes = read_text_classification(TextData(**write_leaking(tmp_path), allow_leakage=True)).notes
    what = "Examples of validation that also stand in train, which makes its score too high"
    assert f"{what}: 2 (first: {tmp_path / 'test.csv'}:3)." in notes
