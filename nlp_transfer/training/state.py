"""What changes while a run trains, and how far it has come."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property

import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn

from nlp_transfer.data.encoded import Batch
from nlp_transfer.training.frozen import FrozenPart
from nlp_transfer.training.optim import Schedule
from nlp_transfer.training.unpadded import Layout, Unpadding, unpadded


@dataclass
class Progress:
    """How far a run has come, in plain numbers. With weights and optimizer it is all that a run needs to go on."""

    epoch: int = 0
    """Finished passes over the training part."""
    step: int = 0
    """Steps taken."""
    steps_in_epoch: int = 0
    """Of these, taken in the epoch under way."""
    updates: int = 0
    """Of these, that changed the weights; the schedule goes by them."""
    skipped_in_a_row: int = 0
    """The last ones, whose loss or gradient was not finite."""
    max_tokens: int | None = None
    """The most that a forward pass of this process holds at once, padding included, where memory has run out."""
    validated: int = 0
    """Epochs whose validation score is known."""
    best_epoch: int = 0
    """The epoch with the best score, of equals the first; 0 before any is known."""
    best_score: float | None = None
    epoch_loss: float = 0.0
    """Summed over the targets of the epoch under way."""
    epoch_targets: int = 0
    seconds: float = 0.0
    """Spent on training and validation, over all the times that the run was started."""

    def count(self, *, moved: bool, is_finite: bool, ends_epoch: bool) -> None:
        """Note one more step."""
        self.step += 1
        self.steps_in_epoch += 1
        self.updates += moved
        self.skipped_in_a_row = 0 if is_finite else self.skipped_in_a_row + 1
        if ends_epoch:
            self.epoch, self.steps_in_epoch = self.epoch + 1, 0

    def count_score(self, score: float) -> bool:
        """Note the score of the last finished epoch; whether it is the best so far."""
        self.validated = self.epoch
        if self.best_score is not None and score <= self.best_score:
            return False
        self.best_epoch, self.best_score = self.epoch, score
        return True

    @property
    def is_validated(self) -> bool:
        return self.validated == self.epoch


@dataclass(frozen=True)
class TrainState:
    """All that changes. Network and optimizer are the ones that accelerate prepared."""

    network: nn.Module
    optimizer: AcceleratedOptimizer
    schedule: Schedule
    progress: Progress
    frozen: FrozenPart | None = None
    """The layers below all that is trained, if there are any."""
    unpadding: Unpadding | None = None
    """What passes can leave out; None where they are computed with padding."""

    def train(self) -> None:
        """The network in the mode for training; what is frozen below has no dropout."""
        if self._last_module.training:
            return  # as the step before has left it: setting all modules takes a while
        self.network.train()
        if self.frozen is not None:
            self.frozen.trunk.without_dropout()

    @cached_property
    def _last_module(self) -> nn.Module:
        *_, last = self.network.modules()
        return last

    def passing(self, batch: Batch) -> AbstractContextManager[None]:
        """Around a pass of ``batch``."""
        return nullcontext() if self.frozen is None else self.frozen.passing(batch)

    def unpadded(self, batch: Batch, device: torch.device) -> dict[str, Layout]:
        """Arguments of such a pass on ``device``, beside the batch's; see ``Unpadding.arguments``."""
        return unpadded(self.unpadding, batch.inputs, device)
