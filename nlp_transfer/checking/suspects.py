"""Labels that look wrong: the frozen encoder's neighbours of a text bear another label.

A ridge regression on mean token vectors is fitted to four fifths of the training texts and asks the rest, in turn, how
well its given label fits against the best other one; the texts whose label fits worst come first (the idea of confident
learning: Northcutt, Jiang & Chuang, 2021, arXiv 1911.00068).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from nlp_transfer.checking.findings import Finding, all_places
from nlp_transfer.checkpoints import Model, encoder_of
from nlp_transfer.data.examples import Source, TextExample
from nlp_transfer.data.store import ExampleStore
from nlp_transfer.errors import counted
from nlp_transfer.labels import LabelSet
from nlp_transfer.reporting.progress import progress_bar
from nlp_transfer.tasks.text_classification import TextClassification
from nlp_transfer.training.evaluate import batches_of
from nlp_transfer.training.processes import processes

FOLDS = 5
RIDGE = 1.0
MAX_TEXTS = 20_000
"""More are not looked at, but drawn from: reading them takes the encoder minutes."""
TOO_MANY = 0.2
"""From this share of suspicious labels on it is the encoder that is told of."""
SUSPICIOUS = -0.25
"""Margin of the given label over the best other one, from which on downwards a label is named."""

Matrix = np.ndarray[Any, np.dtype[np.float64]]


def find_suspects(model: Model, labels: LabelSet, train: ExampleStore[TextExample]) -> tuple[Finding, list[Source]]:
    """The finding, and the places of what was looked at with those whose label fits worst first. One label a text."""
    drawn = np.random.default_rng(0).permutation(len(train))[:MAX_TEXTS]
    examples = train.take(np.sort(drawn))
    features = mean_vectors(model, labels, examples)
    given = np.array([labels.id(example.labels[0]) for example in examples])
    margins, best = held_out_margins(features, given, len(labels))
    order = [int(i) for i in np.argsort(margins, kind="stable")]
    found = [i for i in order if margins[i] <= SUSPICIOUS]
    looked_at = f" of {len(examples):,} drawn" if len(examples) < len(train) else ""
    sources = list(examples.sources())
    message = f"{counted(len(found), 'label')}{looked_at} of train suspicious to the frozen encoder, worst first."
    if len(found) > TOO_MANY * len(examples):
        message = (
            f"{len(found) / len(examples):.0%} of the labels{looked_at} of train look wrong to the frozen encoder: it "
            "cannot tell these classes apart, or very many labels are wrong."
        )
    return Finding(
        kind="suspicious_labels",
        severity="note",
        count=len(found),
        message=message,
        places=all_places(f"{sources[i]} '{labels.names[given[i]]}', perhaps '{labels.names[best[i]]}'" for i in found),
    ), [sources[i] for i in order]


@torch.no_grad()
def mean_vectors(model: Model, labels: LabelSet, examples: ExampleStore[TextExample]) -> Matrix:
    """The mean of each text's token vectors, of length 1; shape ``(examples, width)``."""
    is_pair = examples[0].text_pair is not None
    split = TextClassification(labels=labels, text_pair=is_pair).encode(examples, model)
    device = processes().device
    encoder = encoder_of(model.network).eval().to(device)
    vectors = np.zeros((len(split), model.network.config.hidden_size))
    with progress_bar("reading the training texts", len(split)) as bar:
        for indices in batches_of(split.lengths):
            inputs = split.batch(indices).to(device).inputs
            mask = inputs["attention_mask"].unsqueeze(-1)
            states = encoder(**inputs).last_hidden_state * mask
            vectors[list(indices)] = (states.sum(dim=1) / mask.sum(dim=1)).float().cpu().numpy()
            bar.advance(len(indices))
    normed: Matrix = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return normed


def held_out_margins(
    features: Matrix, given: np.ndarray[Any, np.dtype[np.int64]], num_labels: int
) -> tuple[Matrix, np.ndarray[Any, np.dtype[np.int64]]]:
    """How much better the given label fits than the best other one, and that other one."""
    fold = np.random.default_rng(0).permutation(len(given)) % FOLDS
    targets = np.eye(num_labels)[given]
    fits = np.zeros_like(targets)
    for number in range(FOLDS):
        learned, asked = features[fold != number], features[fold == number]
        mean = targets[fold != number].mean(axis=0)
        gram = learned.T @ learned + RIDGE * np.eye(features.shape[1])
        fits[fold == number] = mean + asked @ np.linalg.solve(gram, learned.T @ (targets[fold != number] - mean))
    rows = np.arange(len(given))
    own = fits[rows, given]
    fits[rows, given] = -np.inf
    return own - fits.max(axis=1), fits.argmax(axis=1)
