"""Text classification: one label a text, any number (multi-label), or labels of pairs of texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from nlp_transfer.checkpoints import HeadKind, Model
from nlp_transfer.data.encoded import EncodedSplit, Indices, Row
from nlp_transfer.data.examples import TextExample
from nlp_transfer.data.framing import frame_of
from nlp_transfer.data.long_texts import LongTexts, pieces_of
from nlp_transfer.data.splits import Splits
from nlp_transfer.data.tokenizing import encode_texts, fallback_id
from nlp_transfer.errors import ConfigError, DataError
from nlp_transfer.labels import IGNORE_INDEX, LabelSet
from nlp_transfer.metrics import CLASS_METRICS, LABEL_SET_METRICS, Score, score_classes, score_label_sets
from nlp_transfer.reporting.progress import progress_bar
from nlp_transfer.tasks.base import Piece, Probabilities, ProblemType, Task, balanced_weights, in_chunks, with_unseen
from nlp_transfer.tasks.config import THRESHOLD, TextClassificationConfig


@dataclass(frozen=True)
class Classification:
    """What a model says of one text."""

    labels: tuple[str, ...]
    """The predicted labels: exactly one, or in multi-label tasks any number, most probable first."""
    probabilities: dict[str, float]
    """Of every label."""
    multi_label: bool = False
    """Whether the model may give any number of labels."""

    @property
    def label(self) -> str | None:
        """The most probable predicted label; None when a multi-label model predicts none."""
        return self.labels[0] if self.labels else None

    @property
    def probability(self) -> float:
        """Of ``label``; where there is none, of the most probable label."""
        return self.probabilities[self.label] if self.label else max(self.probabilities.values())


@dataclass(frozen=True, kw_only=True)
class TextClassification(Task[TextExample, Classification]):
    """One label a text (softmax), or any number (``multi_label``, a sigmoid each)."""

    multi_label: bool = False
    text_pair: bool = False
    """Whether every example is a pair of texts."""
    thresholds: tuple[float, ...] | None = None
    """With ``multi_label``: the probability from which on each label is predicted; None for 0.5."""
    long_texts: LongTexts = "head"
    """What is read of texts longer than the limit; see ``TextClassificationConfig``."""

    name: ClassVar[str] = "text_classification"
    head: ClassVar[HeadKind] = "sequence"
    token_labels: ClassVar[bool] = False

    @classmethod
    def for_splits(cls, splits: Splits[TextExample], config: TextClassificationConfig) -> TextClassification:
        """The labels of the training part. Raises DataError when there is nothing to tell apart."""
        counts = Counter({label: number for label, (number, _) in splits.train.label_places().items()})
        file = splits.train[0].source.file
        if len(counts) < (1 if config.multi_label else 2):
            raise DataError(
                f"{file}: the training part has {len(counts)} label ({', '.join(counts) or 'none'}); "
                "classification needs at least two. Check label_column."
            )
        labels = LabelSet.collect(with_unseen(counts, splits.others(), config.on_unseen_label, file))
        weights = class_weights(labels, counts, len(splits.train), config)
        return cls(
            labels=labels,
            max_tokens=config.max_tokens,
            class_weights=weights,
            label_smoothing=config.label_smoothing,
            multi_label=config.multi_label,
            thresholds=(config.threshold,) * len(labels) if config.multi_label else None,
            text_pair=splits.train[0].text_pair is not None,
            long_texts=config.long_texts,
        )

    def __post_init__(self) -> None:
        if self.text_pair and self.long_texts != "head":
            raise ConfigError(f"long_texts must be 'head' for pairs of texts, got '{self.long_texts}'.")

    @property
    def problem_type(self) -> ProblemType:
        return "multi_label_classification" if self.multi_label else "single_label_classification"

    @property
    def metric_names(self) -> tuple[str, ...]:
        return LABEL_SET_METRICS if self.multi_label else CLASS_METRICS

    def rows(self, examples: Sequence[TextExample], model: Model) -> Iterator[Row]:
        limit = self.token_limit(model)
        numbers = count()
        with progress_bar("tokenizing", len(examples)) as bar:
            for chunk in in_chunks(examples, bar):
                self._refuse_other_kind(chunk)
                texts = [example.text for example in chunk]
                pairs = [example.text_pair for example in chunk] if self.text_pair else None
                for example, inputs in zip(chunk, encode_texts(model.tokenizer, texts, pairs), strict=True):
                    yield from self._rows_of(next(numbers), example, inputs, limit, model.tokenizer)

    def _rows_of(
        self,
        number: int,
        example: TextExample,
        inputs: dict[str, list[int]],
        limit: int,
        tokenizer: PreTrainedTokenizerBase,
    ) -> Iterator[Row]:
        if not inputs["input_ids"]:  # nothing to read, and the tokenizer adds nothing: the network needs a token
            inputs = {name: [fallback_id(tokenizer) if name == "input_ids" else 0] for name in inputs}
        ids, labels = inputs["input_ids"], self._label_ids(example)
        if len(ids) <= limit:
            yield Row(inputs, labels, number)
            return
        for piece, shortened in enumerate(self._shortened(example, ids, limit, tokenizer)):
            yield Row(shortened, labels, number, piece, is_cut=self.long_texts != "windows")

    def _shortened(
        self, example: TextExample, ids: Sequence[int], limit: int, tokenizer: PreTrainedTokenizerBase
    ) -> list[dict[str, list[int]]]:
        """The inputs that a text of too many tokens is read in."""
        if self.text_pair:  # the longer one of the two is cut, token by token
            cut = tokenizer(example.text, example.text_pair, truncation=True, max_length=limit)
            return [dict(cut)]
        frame = frame_of(tokenizer)
        return [frame.around(ids) for ids in pieces_of(frame.inside(ids), limit - frame.size, self.long_texts)]

    def _refuse_other_kind(self, examples: Sequence[TextExample]) -> None:
        for example in examples:
            if (example.text_pair is not None) != self.text_pair:
                wanted, got = ("pairs of texts", "one text") if self.text_pair else ("one text", "a pair")
                raise DataError(f"{example.source}: this model reads {wanted}, got {got}.")

    def _label_ids(self, example: TextExample) -> int | list[float]:
        """Unlabelled texts, which are only predicted, hold no target."""
        if self.multi_label:
            return [float(name in example.labels) for name in self.labels.names]
        return self.labels.id(example.labels[0]) if example.labels else IGNORE_INDEX

    def loss_sum(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Shapes: logits ``(rows, labels)``; labels ``(rows,)``, or ``(rows, labels)`` with multi_label."""
        if not self.multi_label:
            return self.cross_entropy_sum(logits, labels)
        counts = (labels != IGNORE_INDEX).to(logits.dtype)
        weights = self.weights_like(logits)
        if weights is not None:  # of targets that hold the label, and no other part of the loss
            counts = counts * torch.where(labels > 0, weights, 1)
        smooth = labels * (1 - self.label_smoothing) + self.label_smoothing / 2
        losses = F.binary_cross_entropy_with_logits(logits, smooth, reduction="none")
        return (losses * counts).sum()

    def pieces(self, logits: Tensor, split: EncodedSplit, indices: Indices) -> list[Piece]:
        probabilities = torch.sigmoid(logits) if self.multi_label else torch.softmax(logits, dim=-1)
        return [
            Piece(int(split.examples[i]), int(split.starts[i]), row[np.newaxis])
            for i, row in zip(indices, probabilities.float().cpu().numpy(), strict=True)
        ]

    def predictions(self, probabilities: Sequence[Probabilities]) -> list[Classification]:
        """Where a text was read in windows, the mean of their probabilities counts."""
        return [self._prediction(rows.mean(axis=0)) for rows in probabilities]

    def _prediction(self, row: Probabilities) -> Classification:
        order = np.argsort(-row, kind="stable")
        least = self.thresholds or (THRESHOLD,) * len(row)
        chosen = [i for i in order if row[i] >= least[i]] if self.multi_label else order[:1]
        values = dict(zip(self.labels.names, map(float, row), strict=True))
        return Classification(tuple(self.labels.names[i] for i in chosen), values, self.multi_label)

    def score(self, predictions: Sequence[Classification], examples: Sequence[TextExample]) -> Score:
        if self.multi_label:
            found, wanted = [set(p.labels) for p in predictions], [set(e.labels) for e in examples]
            return score_label_sets(found, wanted, self.labels.names)
        return score_classes([p.labels[0] for p in predictions], [e.labels[0] for e in examples], self.labels.names)

    def record(self, example: TextExample, prediction: Classification) -> dict[str, Any]:
        pair = {} if example.text_pair is None else {"text_pair": example.text_pair}
        gold: Any = list(example.labels) if self.multi_label else example.labels[0]
        predicted: Any = list(prediction.labels) if self.multi_label else prediction.label
        found = {"predicted": predicted, "gold": gold, "probability": round(prediction.probability, 4)}
        correct = set(prediction.labels) == set(example.labels)
        return {"source": str(example.source), "text": example.text, **pair, **found, "correct": correct}

    def settings(self) -> dict[str, Any]:
        kind: dict[str, Any] = {"multi_label": self.multi_label, "text_pair": self.text_pair}
        kind |= {"long_texts": self.long_texts} | ({"thresholds": list(self.thresholds)} if self.thresholds else {})
        return {"name": self.name, "labels": list(self.labels.names), **kind}


def class_weights(
    labels: LabelSet, counts: Counter[str], num_examples: int, config: TextClassificationConfig
) -> tuple[float, ...] | None:
    """Multi-label: what a positive target weighs, negatives ÷ positives. Single-label: see ``balanced_weights``."""
    if config.class_weights == "none":
        return None
    if config.multi_label:
        return tuple(max(1, num_examples - counts[name]) / max(1, counts[name]) for name in labels.names)
    return balanced_weights(labels, counts)
