"""What training, evaluation and inference know of a task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, Generic, Literal, NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nlp_transfer.cache import cached
from nlp_transfer.checkpoints import HeadKind, Model
from nlp_transfer.data.encoded import EncodedSplit, Indices, Padding, Row, load_rows, moved, pack, save_rows
from nlp_transfer.data.examples import Source, TaggedExample, TextExample
from nlp_transfer.data.store import ExampleStore
from nlp_transfer.errors import ConfigError, DataError, did_you_mean, quoted
from nlp_transfer.fingerprints import task_code_sha256, tokenizer_key
from nlp_transfer.labels import IGNORE_INDEX, LabelSet
from nlp_transfer.metrics import Score
from nlp_transfer.reporting.progress import Bar, say
from nlp_transfer.tasks.config import MIN_TOKENS, OnUnseenLabel

E = TypeVar("E", TextExample, TaggedExample)
P = TypeVar("P")
Probabilities = np.ndarray[Any, np.dtype[np.float32]]

DEFAULT_MAX_TOKENS = 512
CHUNK = 256
"""Examples that are tokenized together."""


class Piece(NamedTuple):
    """What one row says of its example: the probabilities of its positions from ``start`` on."""

    example: int
    start: int
    probabilities: Probabilities
    """Shape: ``(positions, labels)``."""


ProblemType = Literal["single_label_classification", "multi_label_classification"]


@dataclass(frozen=True, kw_only=True)
class Task(ABC, Generic[E, P]):
    """Labels, encoding, loss and score; ``E`` is the kind of example, ``P`` the kind of prediction."""

    labels: LabelSet
    max_tokens: int | None = None
    """Longest input in tokens; None for what the checkpoint takes, at most 512."""
    class_weights: tuple[float, ...] | None = None
    """What a target of each label weighs in the loss; None for 1 each."""
    label_smoothing: float = 0.0

    name: ClassVar[str]
    head: ClassVar[HeadKind]
    token_labels: ClassVar[bool]

    @property
    @abstractmethod
    def metric_names(self) -> tuple[str, ...]:
        """What ``score`` measures; the first one picks the best epoch unless another is asked for."""

    @property
    def classes(self) -> tuple[str, ...]:
        """What a person tells apart: the labels; of NER, the entity types."""
        return self.labels.names

    @property
    def problem_type(self) -> ProblemType | None:
        """As transformers calls it in ``config.json``: its ``pipeline`` goes by that."""
        return None

    def encode(self, examples: Sequence[E], model: Model) -> EncodedSplit:
        """Rows for the network; every label of ``examples`` must be known. Kept in the cache, and read from there,
        where the examples, the tokenizer and the task's code have a fingerprint.
        """
        padding = padding_of(model)
        rows = self.rows(examples, model)
        content = getattr(examples, "fingerprint", None)
        keys: list[str | None] = [content, task_code_sha256(type(self))]
        if content is not None:
            keys.append(tokenizer_key(model.tokenizer))  # which takes milliseconds
        if None in keys:
            return pack(rows, padding, token_labels=self.token_labels)
        return cached(
            "tokens",
            [*keys, repr(self), self.token_limit(model)],
            lambda folder: save_rows(rows, padding, folder, token_labels=self.token_labels),
            lambda folder: load_rows(folder, padding),
        )

    @abstractmethod
    def rows(self, examples: Sequence[E], model: Model) -> Iterator[Row]:
        """One or more of each example, in order."""

    @abstractmethod
    def loss_sum(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss summed over targets, of shape ``()``; the caller divides by their number in the whole step."""

    def cross_entropy_sum(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Shapes: logits ``(targets, labels)``, labels ``(targets,)``. The loss of a target is multiplied by the weight
        of its own label. (torch's ``weight`` weighs what smoothing gives to other labels by theirs, so that a rare one
        is taught to every target.)
        """
        losses = F.cross_entropy(
            logits, labels, ignore_index=IGNORE_INDEX, label_smoothing=self.label_smoothing, reduction="none"
        )
        weights = self.weights_like(losses)
        if weights is None:
            return losses.sum()
        return (losses * weights[labels.clamp(min=0)]).sum()  # of what has no target the loss is 0

    def weights_like(self, losses: Tensor) -> Tensor | None:
        """``class_weights`` in the type and place of ``losses``, of shape ``(labels,)``."""
        if self.class_weights is None:
            return None
        return moved(torch.tensor(self.class_weights, dtype=losses.dtype), losses.device)

    @abstractmethod
    def pieces(self, logits: Tensor, split: EncodedSplit, indices: Indices) -> list[Piece]:
        """What the logits of one batch say of each of its rows."""

    @abstractmethod
    def predictions(self, probabilities: Sequence[Probabilities]) -> list[P]:
        """One prediction for the probabilities of each example."""

    @abstractmethod
    def score(self, predictions: Sequence[P], examples: Sequence[E]) -> Score:
        """Compare predictions with the examples' labels."""

    @abstractmethod
    def record(self, example: E, prediction: P) -> dict[str, Any]:
        """An example with its prediction, as plain values for a line of ``predictions.jsonl``."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What a saved model needs beside its weights to be used again, as plain values."""

    def token_limit(self, model: Model) -> int:
        """Raises ConfigError when more is asked for than the checkpoint takes, or hardly a word fits."""
        limit = min(model.max_tokens, DEFAULT_MAX_TOKENS) if self.max_tokens is None else self.max_tokens
        if not MIN_TOKENS <= limit <= model.max_tokens:
            raise ConfigError(
                f"max_tokens must be from {MIN_TOKENS} to {model.max_tokens} with checkpoint '{model.origin.name}', "
                f"got {limit}."
            )
        return limit


def padding_of(model: Model) -> Padding:
    tokenizer = model.tokenizer
    fills = {
        "input_ids": tokenizer.pad_token_id,
        "attention_mask": 0,
        "token_type_ids": tokenizer.pad_token_type_id,
    }
    values = {name: fills[name] for name in tokenizer.model_input_names if name in fills}
    # only XLNet counts from the end; elsewhere padding on the left would move the words from where they are looked for
    return Padding(values, "left" if model.network.config.model_type == "xlnet" else "right")


def in_chunks(examples: Iterable[E], bar: Bar) -> Iterator[list[E]]:
    """As many as are tokenized at once."""
    waiting = iter(examples)
    while chunk := list(islice(waiting, CHUNK)):
        yield chunk
        bar.advance(len(chunk))


def with_unseen(
    known: Collection[str], others: Iterable[ExampleStore[E]], on_unseen: OnUnseenLabel, train_file: str
) -> set[str]:
    """``known``, and if so wished the classes of other parts that train lacks: they are counted and shown.

    Raises DataError for such a class otherwise: the model could never predict it.
    """
    unseen: dict[str, list[tuple[int, Source]]] = defaultdict(list)
    for store in others:
        for class_, found in store.class_places().items():
            if class_ not in known:
                unseen[class_].append(found)
    for class_, places in unseen.items():
        if on_unseen == "refuse":
            raise DataError(
                f"{places[0][1]}: label '{class_}' does not occur in the training part ({train_file}), so it cannot be "
                f"learned. Its labels: {quoted(sorted(known))}.{did_you_mean(class_, known)} Correct it, or pass "
                "--task.on-unseen-label keep."
            )
        number = sum(count for count, _ in places)
        say(f"Label '{class_}' does not occur in train: it cannot be learned. It stands {number:,} times elsewhere.")
    return {*known, *unseen}


def refuse_unknown(labels: LabelSet, examples: ExampleStore[Any]) -> None:
    """Raises DataError for a label that a trained model does not know."""
    for label, (_, source) in examples.label_places().items():
        if label not in labels:
            raise DataError(
                f"{source}: label '{label}' is none of the model's: {quoted(labels.names)}."
                f"{did_you_mean(label, labels.names)}"
            )


def balanced_weights(labels: LabelSet, counts: Counter[str]) -> tuple[float, ...]:
    """Number of targets ÷ (number of labels × targets of the label): their mean over the targets is 1."""
    occurring = [name for name in labels.names if counts[name]]
    return tuple(counts.total() / (len(occurring) * counts[name]) if counts[name] else 1.0 for name in labels.names)
