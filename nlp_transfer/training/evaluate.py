"""Predict and score a whole split, each example once, in any number of processes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Generic

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import nn

from nlp_transfer.adapters.one_product import weights_held
from nlp_transfer.checkpoints import Model
from nlp_transfer.data.batching import inference_batches
from nlp_transfer.data.encoded import Batch, EncodedSplit, Indices
from nlp_transfer.data.examples import IntArray
from nlp_transfer.metrics import Metrics, Score
from nlp_transfer.reporting.progress import Bar, progress_bar, say
from nlp_transfer.tasks.base import E, P, Piece, Probabilities, Task
from nlp_transfer.training.processes import processes
from nlp_transfer.training.unpadded import unpadded, unpadding_of
from nlp_transfer.training.watchdog import naming_the_lost

INFERENCE_BATCH_TOKENS = 4096
PASS_TOKENS = {"cpu": 64, "cuda": 4096}
"""What starting a pass costs, in tokens: measured on a CPU; a GPU computes as many in the time."""
PADDING = {"cpu": 0.25}
"""What a position of padding costs, in tokens, where it is computed in attention alone; on a GPU, a whole one."""


@dataclass(frozen=True)
class Evaluation(Generic[E, P]):
    """What a model says of a part of the data, and how right it is."""

    part: str
    """The part's name: test, validation, or a file."""
    examples: Sequence[E]
    predictions: Sequence[P]
    score: Score

    @property
    def metrics(self) -> Metrics:
        return self.score.metrics


def evaluate(model: Model, task: Task[E, P], part: str, examples: Sequence[E]) -> Evaluation[E, P]:
    """Predict in fp32 and score. In several processes each takes a share, and all return the whole."""
    split = task.encode(examples, model)
    say_cut(split, part, task.token_limit(model))
    model.network.to(processes().device)
    with progress_bar(f"evaluating {part}", len(split)) as bar, naming_the_lost():
        probabilities = predict_split(model.network, task, split, len(examples), bar, together=True)
    predictions = task.predictions(probabilities)
    return Evaluation(part, examples, predictions, task.score(predictions, examples))


def say_cut(split: EncodedSplit, part: str, limit: int) -> None:
    """Nothing is left unread in silence."""
    if split.num_cut:
        say(f"{split.num_cut:,} examples of {part} were cut at {limit} tokens; what is beyond is not read.")


@torch.no_grad()  # not inference_mode: it marks buffers, which DDP then cannot share
def predict_split(
    network: nn.Module,
    task: Task[Any, Any],
    split: EncodedSplit,
    num_examples: int,
    bar: Bar,
    *,
    together: bool,
    between: Callable[[], None] = lambda: None,
    passing: Callable[[Batch], AbstractContextManager[None]] = lambda _: nullcontext(),
) -> list[Probabilities]:
    """The probabilities of every example, in order; each of shape ``(positions, labels)``.

    ``together``: all processes call this with the same split, each computes a share, and all get the whole. Rows are
    computed once whatever the number of processes. (accelerate's ``gather_for_metrics`` keeps duplicates in some of its
    paths.) Otherwise this process answers alone.

    ``between`` is called after each batch, in all processes equally often: what it raises ends the work. ``passing`` is
    entered around each pass.
    """
    group = processes()
    shares, own = (group.num_processes, group.process_index) if together else (1, 0)
    network.eval()
    found: list[Piece] = []
    unpadding = unpadding_of(network)
    batches = batches_of(split.lengths, padded=unpadding is None)
    with weights_held(network):
        for first in range(0, len(batches), shares):
            # a process without a batch in the last round computes one all the same: a sharded network needs all of them
            indices = batches[min(first + own, len(batches) - 1)]
            batch = split.batch(indices)
            layout = unpadded(unpadding, batch.inputs, group.device)
            batch = batch.to(group.device)
            with passing(batch):
                logits = network(**batch.inputs, **layout).logits
            if first + own < len(batches):
                found += task.pieces(logits, split, indices)
            bar.advance(sum(map(len, batches[first : first + shares])))
            between()
    return joined(gather_object(found) if shares > 1 else found, num_examples)


def batches_of(lengths: IntArray, *, padded: bool = True) -> list[Indices]:
    """The rows of each forward pass where nothing is trained."""
    device = processes().device.type
    pass_tokens = PASS_TOKENS.get(device, PASS_TOKENS["cuda"])
    if not padded:
        pass_tokens = round(pass_tokens / PADDING.get(device, 1))
    return inference_batches(lengths, INFERENCE_BATCH_TOKENS, pass_tokens)


def joined(pieces: Sequence[Piece], num_examples: int) -> list[Probabilities]:
    """The pieces of every example, one after the other."""
    by_example: dict[int, list[Piece]] = defaultdict(list)
    for piece in pieces:
        by_example[piece.example].append(piece)
    return [
        np.concatenate([piece.probabilities for piece in sorted(by_example[i], key=lambda piece: piece.start)])
        for i in range(num_examples)
    ]
