"""What is written down of a prediction."""

from dataclasses import replace

import numpy as np
import pytest

import nlp_transfer as nt

TASK = nt.TextClassification(labels=nt.LabelSet(("a", "b", "c")), multi_label=True)


@pytest.mark.parametrize(
    ("gold", "correct"), [(("a", "b"), True), (("b", "a"), True), (("a",), False), (("a", "c"), False)]
)
def test_the_order_of_several_labels_does_not_matter(gold, correct):
    prediction = nt.Classification(("b", "a"), {"a": 0.6, "b": 0.9, "c": 0.1})
    assert TASK.record(nt.TextExample("text", gold), prediction)["correct"] is correct


def test_each_label_has_its_threshold():
    task = replace(TASK, thresholds=(0.2, 0.5, 0.9))
    [found] = task.predictions([np.array([[0.3, 0.4, 0.8]], np.float32)])
    assert found.labels == ("a",)


@pytest.mark.parametrize("settings", [{"threshold": 1.0, "multi_label": True}, {"threshold": 0.3}])
def test_a_threshold_that_has_no_meaning_is_refused(settings):
    with pytest.raises(nt.ConfigError, match="threshold"):
        nt.TextClassificationConfig(**settings)


def test_a_label_that_is_no_tuple_is_refused_and_not_read_letter_by_letter():
    with pytest.raises(nt.DataError, match=r"a tuple of names, such as \('good',\), got 'good'"):
        nt.TextExample("a film", "good")  # type: ignore[arg-type]


def test_so_are_target_modules():
    with pytest.raises(nt.ConfigError, match=r"a tuple of names, such as \('all-linear',\).* Leave it out for all"):
        nt.LoraConfig(target_modules="all-linear")  # type: ignore[arg-type]
