"""Adapters of random weights, saved as a run saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import nlp_transfer as nt
from nlp_transfer.data.examples import Source

SOURCE = Source("text", 1)
RANKS = (2, 4, 8)


def make_adapter(
    checkpoint: str,
    folder: Path,
    number: int,
    kind: Any = "lora",
    *,
    seed: int = 0,
    threshold: float = 0.5,
    **lora: Any,
) -> Path:
    """Even numbers classify, every fourth one with any number of labels; odd ones tag. Label counts, ranks differ."""
    names = [f"{chr(65 + i)}{number}" for i in range(2 + number % 4)]
    if number % 2:
        task: Any = nt.Ner(labels=nt.LabelSet.for_tags(names))
        model = nt.load_token_classifier(checkpoint, task.labels, seed=number)
        example: Any = nt.TaggedExample(("a", "text"), ("O", "O"), SOURCE)
    else:
        multi = {"multi_label": True, "thresholds": (threshold,) * len(names)} if number % 4 == 2 else {}
        task = nt.TextClassification(labels=nt.LabelSet(tuple(names)), **multi)
        model = nt.load_sequence_classifier(checkpoint, task.labels, seed=number)
        example = nt.TextExample("a text", (names[0],), SOURCE)
    model = nt.add_adapter(model, kind, nt.LoraConfig(**{"rank": RANKS[number % len(RANKS)], **lora}), seed=number)
    move_weights(model, 100 * seed + number)
    return nt.save_model(model, task, nt.evaluate(model, task, "test", [example]), folder)


def move_weights(model: nt.Model, seed: int) -> None:
    """As training would: a new adapter has no effect."""
    drawn = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.network.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=drawn), alpha=0.1)
