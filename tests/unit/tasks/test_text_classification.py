"""What is written down of a prediction."""

import pytest

import nlp_transfer as nt

TASK = nt.TextClassification(labels=nt.LabelSet(("a", "b", "c")), multi_label=True)


@pytest.mark.parametrize(
    ("gold", "correct"), [(("a", "b"), True), (("b", "a"), True), (("a",), False), (("a", "c"), False)]
)
def test_the_order_of_several_labels_does_not_matter(gold, correct):
    prediction = nt.Classification(("b", "a"), {"a": 0.6, "b": 0.9, "c": 0.1})
    assert TASK.record(nt.TextExample("text", gold), prediction)["correct"] is correct
