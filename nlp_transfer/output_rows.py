"""The last layer of a head has a row a label. Where labels are put in order, or together, their rows are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from nlp_transfer.checkpoints import HeadKind, skeleton
from nlp_transfer.labels import LabelSet


def output_names(config: PreTrainedConfig, head: HeadKind) -> list[str]:
    """Names of the tensors that grow with the number of labels, in a network of this kind."""
    few, more = (skeleton(config, LabelSet(tuple(map(str, range(number)))), head).state_dict() for number in (2, 3))
    return [name for name, tensor in few.items() if tensor.shape != more[name].shape]


def united_rows(
    parents: Sequence[Tensor], label_sets: Sequence[LabelSet], union: LabelSet, shares: Sequence[float], *, level: bool
) -> Tensor:
    """Rows for the labels of ``union``, from parents of shape ``(labels, ...)``; those that several have are averaged.

    With ``level``, each parent's rows are moved together, which its softmax takes no notice of, until the rows of the
    labels that all parents have are 0 on average. Then one such label, as NER's O, is the same in all of them, and each
    parent's probabilities among its own labels are what they were.
    """
    common = [name for name in union.names if all(name in labels for labels in label_sets)]
    if level and common:
        places = [[labels.id(name) for name in common] for labels in label_sets]
        parents = [rows - rows[place].mean(dim=0) for rows, place in zip(parents, places, strict=True)]
    found = []
    for name in union.names:
        holders = [i for i, labels in enumerate(label_sets) if name in labels]
        rows = [parents[i][label_sets[i].id(name)] for i in holders]
        found.append(rows[0] if len(rows) == 1 else weighted(rows, [shares[i] for i in holders]))
    return torch.stack(found)


def weighted(tensors: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """Their mean; where none has a share, each counts the same."""
    total = sum(shares)
    own = [share / total for share in shares] if total else [1 / len(shares)] * len(shares)
    return sum((share * tensor for share, tensor in zip(own, tensors, strict=True)), torch.zeros(()))
