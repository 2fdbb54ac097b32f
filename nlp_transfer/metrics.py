"""Scores from plain Python values: every one can be checked by hand. No tensors here.

``nlp_transfer.data.evaluate_metric`` offers the entity scores to users of the `evaluate` library.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from nlp_transfer.labels import OUTSIDE, Span, spans_of, split_tag, strict_spans_of

Metrics = dict[str, float]
"""Name to value; all are shares from 0 to 1."""

CLASS_METRICS = ("accuracy", "macro_f1", "weighted_f1")
LABEL_SET_METRICS = ("micro_f1", "macro_f1", "precision", "recall", "accuracy")
ENTITY_METRICS = ("f1", "precision", "recall", "strict_f1", "macro_f1")


class LabelScore(NamedTuple):
    """How well one label is found. ``support`` counts its gold occurrences."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Confusion:
    """``counts[i][j]`` items of gold label ``names[i]`` were predicted as ``names[j]``."""

    names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Score:
    """What a whole split scores."""

    metrics: Metrics
    per_label: tuple[LabelScore, ...]
    confusion: Confusion


def precision_recall_f1(num_correct: int, num_predicted: int, num_gold: int) -> tuple[float, float, float]:
    """A share of nothing is 0."""
    precision = num_correct / num_predicted if num_predicted else 0.0
    recall = num_correct / num_gold if num_gold else 0.0
    f1 = 2 * precision * recall / (precision + recall) if num_correct else 0.0
    return precision, recall, f1


def confusion(predicted: Iterable[str], gold: Iterable[str], names: Sequence[str]) -> Confusion:
    pairs = Counter(zip(gold, predicted, strict=True))
    return Confusion(tuple(names), tuple(tuple(pairs[row, column] for column in names) for row in names))


def score_classes(predicted: Sequence[str], gold: Sequence[str], names: Sequence[str]) -> Score:
    """Accuracy and F1s of one label an example. Macro F1 is the mean over labels that occur in gold or predictions."""
    predicted_sets, gold_sets = [{label} for label in predicted], [{label} for label in gold]
    per_label = score_each_label(predicted_sets, gold_sets, names)
    num_correct = sum(p == g for p, g in zip(predicted, gold, strict=True))
    occurring = set(predicted) | set(gold)
    total = sum(row.support for row in per_label)
    metrics = {
        "accuracy": num_correct / len(gold) if gold else 0.0,
        "macro_f1": mean(row.f1 for row in per_label if row.label in occurring),
        "weighted_f1": sum(row.f1 * row.support for row in per_label) / total if total else 0.0,
    }
    return Score(metrics, per_label, confusion(predicted, gold, names))


def score_label_sets(predicted: Sequence[set[str]], gold: Sequence[set[str]], names: Sequence[str]) -> Score:
    """Micro and macro F1 and exact-match accuracy of any number of labels an example.

    The confusion matrix pairs what was missed with what was wrongly predicted; "(none)" stands for no label.
    """
    num_correct = sum(len(p & g) for p, g in zip(predicted, gold, strict=True))
    num_predicted, num_gold = sum(map(len, predicted)), sum(map(len, gold))
    precision, recall, micro_f1 = precision_recall_f1(num_correct, num_predicted, num_gold)
    per_label = score_each_label(predicted, gold, names)
    metrics = {
        "micro_f1": micro_f1,
        "macro_f1": mean(row.f1 for row in per_label),
        "precision": precision,
        "recall": recall,
        "accuracy": mean(float(p == g) for p, g in zip(predicted, gold, strict=True)),
    }
    pairs = [pair for p, g in zip(predicted, gold, strict=True) for pair in confused_pairs(p, g)]
    rows = confusion((p for p, _ in pairs), (g for _, g in pairs), [*names, "(none)"])
    return Score(metrics, per_label, rows)


def confused_pairs(predicted: set[str], gold: set[str]) -> list[tuple[str, str]]:
    """(predicted, gold) pairs of one example: hits with themselves, misses with false alarms."""
    hits = [(label, label) for label in sorted(predicted & gold)]
    extra, missed = sorted(predicted - gold) or ["(none)"], sorted(gold - predicted) or ["(none)"]
    wrong = [(p, g) for p in extra for g in missed if (p, g) != ("(none)", "(none)")]
    return hits + wrong


def score_entities(predicted: Sequence[Sequence[str]], gold: Sequence[Sequence[str]], types: Sequence[str]) -> Score:
    """Micro-averaged exact-match entity scores over sentences of IOB2 tags; every gold entity counts.

    ``f1`` reads a stray ``I-X`` as a beginning (conlleval; seqeval's default); ``strict_f1`` drops it (seqeval's
    strict mode with IOB2). The confusion matrix counts words by type.
    """
    found, wanted = index_spans(predicted, spans_of), index_spans(gold, spans_of)
    correct = found & wanted
    precision, recall, f1 = precision_recall_f1(correct.total(), found.total(), wanted.total())
    strict_found, strict_wanted = index_spans(predicted, strict_spans_of), index_spans(gold, strict_spans_of)
    strict_correct = (strict_found & strict_wanted).total()
    strict_f1 = precision_recall_f1(strict_correct, strict_found.total(), strict_wanted.total())[2]
    per_label = label_scores(
        types, *(Counter(span.label for _, span in side.elements()) for side in (correct, found, wanted))
    )
    metrics = {"f1": f1, "precision": precision, "recall": recall, "strict_f1": strict_f1}
    occurring = {span.label for side in (found, wanted) for _, span in side}
    metrics["macro_f1"] = mean(row.f1 for row in per_label if row.label in occurring)
    words = confusion(word_types(predicted), word_types(gold), [OUTSIDE, *types])
    return Score(metrics, per_label, words)


def index_spans(
    sentences: Sequence[Sequence[str]], read: Callable[[Sequence[str]], list[Span]]
) -> Counter[tuple[int, Span]]:
    return Counter((number, span) for number, tags in enumerate(sentences) for span in read(tags))


def word_types(sentences: Sequence[Sequence[str]]) -> list[str]:
    return [split_tag(tag)[1] or OUTSIDE for tags in sentences for tag in tags]


def score_each_label(
    predicted: Sequence[set[str]], gold: Sequence[set[str]], names: Sequence[str]
) -> tuple[LabelScore, ...]:
    correct = Counter(label for p, g in zip(predicted, gold, strict=True) for label in p & g)
    found, wanted = (Counter(label for labels in side for label in labels) for side in (predicted, gold))
    return label_scores(names, correct, found, wanted)


def label_scores(
    names: Sequence[str], correct: Counter[str], found: Counter[str], wanted: Counter[str]
) -> tuple[LabelScore, ...]:
    return tuple(
        LabelScore(name, *precision_recall_f1(correct[name], found[name], wanted[name]), support=wanted[name])
        for name in names
    )


def mean(values: Iterable[float]) -> float:
    items = list(values)
    return sum(items) / len(items) if items else 0.0
