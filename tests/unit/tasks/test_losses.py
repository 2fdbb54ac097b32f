"""Class weights and label smoothing are what their settings say, counted by hand."""

from collections import Counter

import pytest
import torch

import nlp_transfer as nt
from nlp_transfer.tasks.base import balanced_weights
from nlp_transfer.tasks.text_classification import class_weights

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, -2.0]])
LABELS = nt.LabelSet(("a", "b", "c"))


def test_label_smoothing_spreads_a_share_of_each_target_over_all_labels():
    task = nt.TextClassification(labels=LABELS, label_smoothing=0.3)
    log = LOGITS.log_softmax(dim=-1)
    by_hand = sum(-(0.7 * row[gold] + 0.3 * row.mean()) for row, gold in zip(log, (0, 2), strict=True))
    assert float(task.loss_sum(LOGITS, torch.tensor([0, 2]))) == pytest.approx(float(by_hand))


def test_multi_label_smoothing_pulls_each_target_towards_the_middle():
    task = nt.TextClassification(labels=LABELS, label_smoothing=0.2, multi_label=True)
    gold = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    p, smooth = LOGITS.sigmoid(), gold * 0.8 + 0.1
    by_hand = -(smooth * p.log() + (1 - smooth) * (1 - p).log()).sum()
    assert float(task.loss_sum(LOGITS, gold)) == pytest.approx(float(by_hand))


def test_class_weights_multiply_the_loss_of_their_targets():
    log = LOGITS.log_softmax(dim=-1)
    task = nt.TextClassification(labels=LABELS, class_weights=(2.0, 1.0, 5.0))
    assert float(task.loss_sum(LOGITS, torch.tensor([0, 2]))) == pytest.approx(-float(2 * log[0, 0] + 5 * log[1, 2]))
    tagger = nt.Ner(labels=LABELS, class_weights=(2.0, 1.0, 5.0))
    assert float(tagger.loss_sum(LOGITS[None], torch.tensor([[-100, 2]]))) == pytest.approx(-float(5 * log[1, 2]))


def test_a_weight_is_of_the_targets_own_label_with_smoothing_too():
    """Else a rare label, which weighs much, would be taught to all targets."""
    log, weights = LOGITS.log_softmax(dim=-1), (2.0, 1.0, 50.0)
    by_hand = sum(-weights[gold] * (0.7 * row[gold] + 0.3 * row.mean()) for row, gold in zip(log, (0, 1), strict=True))
    for task, batch in ((nt.TextClassification, LOGITS), (nt.Ner, LOGITS[None])):
        own = task(labels=LABELS, class_weights=weights, label_smoothing=0.3)
        gold = torch.tensor([0, 1]) if batch is LOGITS else torch.tensor([[0, 1]])
        assert float(own.loss_sum(batch, gold)) == pytest.approx(float(by_hand))


def test_so_it_is_with_several_labels_a_text():
    task = nt.TextClassification(labels=LABELS, class_weights=(2.0, 1.0, 50.0), label_smoothing=0.2, multi_label=True)
    gold = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    p, smooth = LOGITS.sigmoid(), gold * 0.8 + 0.1
    losses = -(smooth * p.log() + (1 - smooth) * (1 - p).log())
    by_hand = (losses * torch.tensor([[2.0, 1.0, 1.0], [1.0, 1.0, 1.0]])).sum()
    assert float(task.loss_sum(LOGITS, gold)) == pytest.approx(float(by_hand))


def test_balanced_weights_are_high_where_a_label_is_rare_and_one_on_average():
    counts = Counter(a=6, b=2)
    weights = balanced_weights(LABELS, counts)
    assert weights == pytest.approx((8 / 12, 8 / 4, 1.0))
    assert sum(weights[i] * counts[name] for i, name in enumerate(LABELS.names)) == pytest.approx(counts.total())


def test_balanced_multi_label_weights_are_negatives_over_positives():
    config = nt.TextClassificationConfig(multi_label=True, class_weights="balanced")
    assert class_weights(LABELS, Counter(a=2, b=8), 10, config) == pytest.approx((4.0, 0.25, 10.0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nt.TrainingConfig(schedule="constant"), "schedule must be one of 'linear', 'cosine', got 'constant'"),
        (lambda: nt.TextClassificationConfig(class_weights="balance"), "Did you mean 'balanced'?"),
        (lambda: nt.LoraConfig(init="orthogonal", rank=5), "rank must be even"),
        (lambda: nt.LoraConfig(init="svd"), "init must be one of"),
    ],
)
def test_a_setting_is_checked_when_it_is_made(make, message):
    with pytest.raises(nt.ConfigError) as caught:
        make()
    assert message in str(caught.value)
