"""Named-entity recognition: one tag for every word of every text, whatever its length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from nlp_transfer.checkpoints import HeadKind, Model
from nlp_transfer.data.encoded import UNREAD, EncodedSplit, Indices, Row
from nlp_transfer.data.examples import TaggedExample
from nlp_transfer.data.long_texts import LongTaggedTexts
from nlp_transfer.data.splits import Splits
from nlp_transfer.data.words import Window, WordTokenizer
from nlp_transfer.errors import DataError
from nlp_transfer.labels import IGNORE_INDEX, LabelSet, Span, spans_of, split_tag
from nlp_transfer.metrics import ENTITY_METRICS, Score, score_entities
from nlp_transfer.reporting.progress import progress_bar
from nlp_transfer.tasks.base import Piece, Probabilities, Task, balanced_weights, in_chunks, with_unseen
from nlp_transfer.tasks.config import NerConfig


@dataclass(frozen=True)
class Tagging:
    """What a model says of one text: a tag for every word, always a legal IOB2 sequence."""

    tags: tuple[str, ...]
    probabilities: tuple[float, ...]
    """Of each tag."""

    def entities(self) -> list[tuple[Span, float]]:
        """Each entity with the mean probability of its tags."""
        spans = spans_of(self.tags)
        return [(span, float(np.mean(self.probabilities[span.start : span.end]))) for span in spans]


@dataclass(frozen=True, kw_only=True)
class Ner(Task[TaggedExample, Tagging]):
    """Token classification with the tag of a word at its first token."""

    long_texts: LongTaggedTexts = "windows"
    """What is read of texts longer than the limit; see ``NerConfig``."""

    name: ClassVar[str] = "ner"
    head: ClassVar[HeadKind] = "token"
    token_labels: ClassVar[bool] = True

    @classmethod
    def for_splits(cls, splits: Splits[TaggedExample], config: NerConfig) -> Ner:
        """Entity types of the training part. Raises DataError when it has none, or another part has others."""
        counts = Counter({tag: number for tag, (number, _) in splits.train.label_places().items()})
        types = set(splits.train.class_places())
        file = splits.train[0].source.file
        if not types:
            raise DataError(f"{file}: the training part holds no entity: every tag is O. Check tags_column.")
        labels = LabelSet.for_tags(with_unseen(types, splits.others(), config.on_unseen_label, file))
        weights = balanced_weights(labels, counts) if config.class_weights == "balanced" else None
        return cls(
            labels=labels,
            max_tokens=config.max_tokens,
            class_weights=weights,
            label_smoothing=config.label_smoothing,
            long_texts=config.long_texts,
        )

    @property
    def metric_names(self) -> tuple[str, ...]:
        return ENTITY_METRICS

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(split_tag(name)[1] for name in self.labels.names[1:]))

    def rows(self, examples: Sequence[TaggedExample], model: Model) -> Iterator[Row]:
        tokenizer = WordTokenizer(model.tokenizer, self.token_limit(model))
        numbers = count()
        with progress_bar("tokenizing", len(examples)) as bar:
            for chunk in in_chunks(examples, bar):
                tokenizer.learn(example.words for example in chunk)
                for example in chunk:
                    yield from self._rows_of(next(numbers), example, tokenizer)

    def _rows_of(self, number: int, example: TaggedExample, tokenizer: WordTokenizer) -> Iterator[Row]:
        is_head = self.long_texts == "head"
        has_cut = tokenizer.has_cut(example.words)
        for window in [tokenizer.head(example.words)] if is_head else tokenizer.windows(example.words):
            labels = self._label_ids(window, example.tags)
            is_cut = has_cut or UNREAD in window.positions
            yield Row(window.inputs, labels, number, window.start, window.positions, is_cut)

    def _label_ids(self, window: Window, tags: Sequence[str]) -> list[int]:
        """The tag at the first token of the window's own words; texts that are only predicted have no tags."""
        ids = [IGNORE_INDEX] * len(window.inputs["input_ids"])
        for tag, position in zip(tags[window.start :], window.positions, strict=False):
            if position != UNREAD:
                ids[position] = self.labels.id(tag)
        return ids

    def loss_sum(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Shapes: logits ``(rows, tokens, labels)``; labels ``(rows, tokens)``."""
        return self.cross_entropy_sum(logits.flatten(0, 1), labels.flatten())

    def pieces(self, logits: Tensor, split: EncodedSplit, indices: Indices) -> list[Piece]:
        probabilities = torch.softmax(logits.float(), dim=-1).cpu().numpy()
        found = []
        for i, row in zip(indices, probabilities, strict=True):
            positions = split.positions_of(i, len(row))
            of_words = row[positions]
            of_words[positions == UNREAD] = np.eye(len(self.labels), dtype=np.float32)[0]  # O, the first label
            found.append(Piece(int(split.examples[i]), int(split.starts[i]), of_words))
        return found

    def predictions(self, probabilities: Sequence[Probabilities]) -> list[Tagging]:
        return [self._prediction(rows) for rows in probabilities]

    def _prediction(self, rows: Probabilities) -> Tagging:
        ids = best_legal_tags(rows)
        return Tagging(
            tuple(self.labels.names[i] for i in ids), tuple(float(row[i]) for row, i in zip(rows, ids, strict=True))
        )

    def score(self, predictions: Sequence[Tagging], examples: Sequence[TaggedExample]) -> Score:
        return score_entities([p.tags for p in predictions], [e.tags for e in examples], self.classes)

    def record(self, example: TaggedExample, prediction: Tagging) -> dict[str, Any]:
        found, wanted = spans_of(prediction.tags), spans_of(example.tags)
        return {
            "source": str(example.source),
            "words": list(example.words),
            "predicted": list(prediction.tags),
            "gold": list(example.tags),
            "entities": [
                {"text": " ".join(example.words[span.start : span.end]), "label": span.label, "score": round(score, 4)}
                for span, score in prediction.entities()
            ],
            "correct": found == wanted,
        }

    def settings(self) -> dict[str, Any]:
        return {"name": self.name, "labels": list(self.labels.names), "scheme": "IOB2", "long_texts": self.long_texts}


def best_legal_tags(probabilities: Probabilities) -> list[int]:
    """The most probable tag sequence in which ``I-X`` only follows ``B-X`` or ``I-X`` (Viterbi, 1967).

    Shape: ``(words, tags)``, tags in the order of ``LabelSet.for_tags``: O, then B and I of each type.
    """
    if not len(probabilities):
        return []
    scores = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny)).astype(np.float64)
    begin, inside = slice(1, None, 2), slice(2, None, 2)
    best = scores[0].copy()
    best[inside] = -np.inf
    came_from = np.zeros(scores.shape, dtype=np.int64)
    for word in range(1, len(scores)):
        came_from[word] = best.argmax()
        stays = best[inside] >= best[begin]
        came_from[word, inside] = np.arange(2, len(best), 2) - ~stays
        best = best[came_from[word]] + scores[word]
    path = [int(best.argmax())]
    for word in range(len(scores) - 1, 0, -1):
        path.append(int(came_from[word, path[-1]]))
    return path[::-1]
