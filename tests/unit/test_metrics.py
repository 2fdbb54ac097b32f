"""Scores equal those of scikit-learn and seqeval, and can be had through `evaluate`."""

import random
from pathlib import Path

import pytest
import seqeval.metrics
from seqeval.scheme import IOB2
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support
from sklearn.preprocessing import MultiLabelBinarizer

from nlp_transfer.data.evaluate_metric import EntityF1
from nlp_transfer.data.lines import numbered_lines
from nlp_transfer.metrics import confused_pairs, precision_recall_f1, score_classes, score_entities, score_label_sets
from tests.corpus import real_data

NAMES = ["anger", "fear", "joy", "none"]
TYPES = ["LOC", "PER", "geo-loc"]
TAGS = ["O", "O", "O", *(f"{prefix}-{type_}" for type_ in TYPES for prefix in "BI")]


def random_tags(rng: random.Random, length: int) -> list[str]:
    """Any tags at all: mostly no legal IOB2 sequence."""
    return rng.choices(TAGS, k=length)


def corrupted(rng: random.Random, tags: list[str]) -> list[str]:
    return [rng.choice(TAGS) if rng.random() < 0.2 else tag for tag in tags]


def tag_pairs(seed: int, count: int) -> list[tuple[list[str], list[str]]]:
    """Gold and predicted tags that agree in part."""
    rng = random.Random(seed)
    golds = [random_tags(rng, rng.randint(1, 8)) for _ in range(count)]
    return [(gold, corrupted(rng, gold)) for gold in golds]


def expected_entity_scores(gold: list[list[str]], predicted: list[list[str]]) -> dict[str, float]:
    return {
        "f1": seqeval.metrics.f1_score(gold, predicted, zero_division=0),
        "precision": seqeval.metrics.precision_score(gold, predicted, zero_division=0),
        "recall": seqeval.metrics.recall_score(gold, predicted, zero_division=0),
        "strict_f1": seqeval.metrics.f1_score(gold, predicted, mode="strict", scheme=IOB2, zero_division=0),
    }


def chosen(metrics: dict[str, float], names: dict[str, float]) -> dict[str, float]:
    return {name: metrics[name] for name in names}


def test_entity_scores_equal_seqeval_on_every_single_sentence():
    for gold, predicted in tag_pairs(seed=0, count=2000):
        expected = expected_entity_scores([gold], [predicted])
        assert chosen(score_entities([predicted], [gold], TYPES).metrics, expected) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(20))
def test_entity_scores_equal_seqeval_on_whole_corpora(seed):
    golds, predictions = map(list, zip(*tag_pairs(seed, count=500), strict=True))
    expected = expected_entity_scores(golds, predictions)
    score = score_entities(predictions, golds, TYPES)
    assert chosen(score.metrics, expected) == pytest.approx(expected)
    report = seqeval.metrics.classification_report(golds, predictions, output_dict=True, zero_division=0)
    for row in score.per_label:
        assert (row.precision, row.recall, row.f1, row.support) == pytest.approx(
            tuple(report[row.label][name] for name in ("precision", "recall", "f1-score", "support"))
        )


SUBMISSIONS = {
    "uh_ritual": 41.86,
    "spinningbytes.txt": 40.78,
    "sjtu_adapt.txt": 40.42,
    "arcada": 39.98,
    "flytxt": 38.35,
    "mic-cis.txt": 37.06,
    "drexel_cci": 26.30,
}
"""Entity F1 as published (Derczynski et al., 2017, aclanthology W17-4418)."""


def tag_column(path: Path) -> list[list[str]]:
    sentences: list[list[str]] = [[]]
    for _, line in numbered_lines(path):
        if line.strip():
            sentences[-1].append(line.split()[-1])
        elif sentences[-1]:
            sentences.append([])
    return [tags for tags in sentences if tags]


@pytest.mark.parametrize(("name", "published"), SUBMISSIONS.items(), ids=SUBMISSIONS)
def test_the_systems_of_wnut17_get_their_published_scores(name, published):
    folder = real_data("wnut17")
    gold = tag_column(folder / "emerging.test.annotated")
    tags = iter([tag for sentence in tag_column(folder / "submissions" / name) for tag in sentence])
    predicted = [[next(tags) for _ in sentence] for sentence in gold]
    assert next(tags, None) is None
    types = sorted({tag[2:] for sentence in gold for tag in sentence if tag != "O"})
    assert round(100 * score_entities(predicted, gold, types).metrics["f1"], 2) == published


def test_every_gold_entity_counts_even_when_nothing_is_predicted():
    gold = [["B-PER", "I-PER", "O"], ["B-LOC"], ["B-LOC"]]
    score = score_entities([["O", "O", "O"], ["B-LOC"], ["O"]], gold, ["LOC", "PER"])
    assert score.metrics == pytest.approx(
        {"f1": 0.5, "precision": 1.0, "recall": 1 / 3, "strict_f1": 0.5, "macro_f1": 1 / 3}
    )
    assert [row.support for row in score.per_label] == [2, 1]


def test_a_type_that_is_found_and_never_gold_counts_as_wrong():
    score = score_entities([["B-PER", "B-ORG"]], [["B-PER", "O"]], ["LOC", "ORG", "PER"])
    assert score.metrics["macro_f1"] == 0.5  # of ORG and PER, as of labels; LOC occurs nowhere


def test_sentences_are_not_joined_into_one_entity():
    assert score_entities([["B-X"], ["I-X"]], [["B-X"], ["I-X"]], ["X"]).per_label[0].support == 2


def test_entity_confusion_counts_words_by_type():
    rows = score_entities([["B-PER", "O", "B-LOC"]], [["B-PER", "I-PER", "O"]], ["LOC", "PER"]).confusion
    assert rows.names == ("O", "LOC", "PER")
    assert rows.counts == ((0, 1, 0), (0, 0, 0), (1, 0, 1))


@pytest.mark.parametrize("seed", range(20))
def test_class_scores_equal_scikit_learn(seed):
    rng = random.Random(seed)
    used = rng.sample(NAMES, rng.randint(1, len(NAMES)))
    gold, predicted = (rng.choices(used, k=rng.randint(1, 30)) for _ in range(2))
    gold, predicted = gold[: len(predicted)], predicted[: len(gold)]
    score = score_classes(predicted, gold, NAMES)
    assert score.metrics == pytest.approx(
        {
            "accuracy": accuracy_score(gold, predicted),
            "macro_f1": f1_score(gold, predicted, average="macro", zero_division=0),
            "weighted_f1": f1_score(gold, predicted, average="weighted", zero_division=0),
        }
    )
    assert [list(row) for row in score.confusion.counts] == confusion_matrix(gold, predicted, labels=NAMES).tolist()
    each = precision_recall_fscore_support(gold, predicted, labels=NAMES, zero_division=0)
    assert [tuple(row)[1:] for row in score.per_label] == [pytest.approx(row) for row in zip(*each, strict=True)]


@pytest.mark.parametrize("seed", range(20))
def test_label_set_scores_equal_scikit_learn(seed):
    rng = random.Random(seed)
    gold, predicted = ([set(rng.sample(NAMES, rng.randint(0, 3))) for _ in range(15)] for _ in range(2))
    binarizer = MultiLabelBinarizer(classes=NAMES)
    wanted, found = binarizer.fit_transform(gold), binarizer.fit_transform(predicted)
    precision, recall, micro_f1, _ = precision_recall_fscore_support(wanted, found, average="micro", zero_division=0)
    assert score_label_sets(predicted, gold, NAMES).metrics == pytest.approx(
        {
            "micro_f1": micro_f1,
            "macro_f1": f1_score(wanted, found, average="macro", zero_division=0),
            "precision": precision,
            "recall": recall,
            "accuracy": accuracy_score(wanted, found),
        }
    )


@pytest.mark.parametrize(
    ("predicted", "gold", "pairs"),
    [
        ({"a", "b"}, {"a", "c"}, [("a", "a"), ("b", "c")]),
        ({"a"}, set(), [("a", "(none)")]),
        (set(), {"a"}, [("(none)", "a")]),
        (set(), set(), []),
    ],
    ids=["mixed-up", "false alarm", "missed", "rightly nothing"],
)
def test_multi_label_confusion_pairs_misses_with_false_alarms(predicted, gold, pairs):
    assert confused_pairs(predicted, gold) == pairs


@pytest.mark.parametrize(
    ("counts", "scores"),
    [((0, 0, 0), (0, 0, 0)), ((0, 3, 0), (0, 0, 0)), ((0, 0, 3), (0, 0, 0)), ((1, 2, 4), (0.5, 0.25, 1 / 3))],
)
def test_a_share_of_nothing_is_0(counts, scores):
    assert precision_recall_f1(*counts) == pytest.approx(scores)


def test_a_split_without_examples_scores_0():
    assert set(score_classes([], [], NAMES).metrics.values()) == {0.0}
    assert set(score_label_sets([], [], NAMES).metrics.values()) == {0.0}
    assert set(score_entities([], [], TYPES).metrics.values()) == {0.0}


@pytest.mark.usefixtures("socket_disabled")
def test_the_evaluate_metric_gives_the_entity_scores_without_a_network(tmp_path):
    golds, predictions = map(list, zip(*tag_pairs(seed=0, count=25), strict=True))
    computed = EntityF1(cache_dir=str(tmp_path)).compute(predictions=predictions, references=golds)
    assert computed == pytest.approx(score_entities(predictions, golds, TYPES).metrics)
    assert computed["strict_f1"] < computed["f1"]


@pytest.mark.usefixtures("socket_disabled")
def test_the_evaluate_metric_takes_batches(tmp_path):
    metric = EntityF1(cache_dir=str(tmp_path))
    for gold, predicted in [(["B-X", "I-X"], ["B-X", "I-X"]), (["O"], ["O"])]:
        metric.add_batch(predictions=[predicted], references=[gold])
    assert metric.compute()["f1"] == 1
