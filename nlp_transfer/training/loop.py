"""The training loop: steps of rows go in, one result per optimizer step comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from nlp_transfer.data.batching import Step
from nlp_transfer.data.encoded import EncodedSplit, Indices
from nlp_transfer.training.defaults import TrainingPlan

LossSum = Callable[[Tensor, Tensor], Tensor]
"""Takes logits and labels, gives the loss summed over targets, of shape ``()``."""


@dataclass
class Progress:
    """How far a run has come."""

    epoch: int = 0
    """Finished passes over the training part."""
    step: int = 0
    """Optimizer steps taken."""
    steps_in_epoch: int = 0
    """Of these, taken in the epoch under way."""


@dataclass(frozen=True)
class TrainState:
    """What changes while a run trains. Network and optimizer are the ones that accelerate prepared."""

    network: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler
    progress: Progress


@dataclass(frozen=True)
class StepResult:
    """What one optimizer step did. The tensors stay on the device; reading one makes the CPU wait."""

    step: int
    epoch: int
    """Counted from 1."""
    loss: Tensor
    """Mean over the targets of the whole step, of shape ``()``."""
    grad_norm: Tensor
    """L2 norm of the gradient before it was clipped, of shape ``()``."""
    learning_rate: float
    num_rows: int
    num_targets: int
    ends_epoch: bool


def train_steps(
    accelerator: Accelerator,
    state: TrainState,
    split: EncodedSplit,
    loss_sum: LossSum,
    plan: TrainingPlan,
    max_grad_norm: float,
) -> Iterator[StepResult]:
    """Train to the end of the plan, handing control back after every optimizer step.

    What happens between steps is the caller's ``for`` body: log, evaluate, save, or break.
    """
    progress = state.progress
    while progress.epoch < plan.num_epochs:
        epoch = progress.epoch + 1
        for step in plan.batches.steps(progress.epoch)[progress.steps_in_epoch :]:
            learning_rate = max(float(rate) for rate in state.scheduler.get_last_lr())
            seed = (plan.batches.seed, progress.step)
            loss, grad_norm = take_step(accelerator, state, split, step, loss_sum, max_grad_norm, seed)

            progress.step += 1
            progress.steps_in_epoch += 1
            if step.ends_epoch:
                progress.epoch, progress.steps_in_epoch = epoch, 0
            num_rows = sum(map(len, step.micro_batches))
            yield StepResult(
                progress.step, epoch, loss, grad_norm, learning_rate, num_rows, step.num_targets, step.ends_epoch
            )


def take_step(
    accelerator: Accelerator,
    state: TrainState,
    split: EncodedSplit,
    step: Step,
    loss_sum: LossSum,
    max_grad_norm: float,
    seed: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Make one optimizer step and return its mean loss and its gradient norm.

    The gradient is that of the sum over all targets of the step divided by their number, so how the targets are
    spread over micro-batches and processes does not change it. (The mean of micro-batch means, which the usual
    trainers take, points elsewhere: transformers#47688.)
    """
    state.network.train()
    total_loss = torch.zeros((), device=accelerator.device)
    share = step.share(accelerator.process_index, accelerator.num_processes)
    for turn, rows in enumerate(share):
        seed_dropout(*seed, turn * accelerator.num_processes + accelerator.process_index)
        is_last = turn == len(share) - 1
        with nullcontext() if is_last else accelerator.no_sync(state.network):
            loss = micro_batch_loss(accelerator, state.network, split, rows, loss_sum) / step.num_targets
            accelerator.backward(loss * accelerator.num_processes)  # gradients of processes are averaged
            total_loss += loss.detach()

    grad_norm = accelerator.clip_grad_norm_(state.network.parameters(), max_grad_norm)
    state.optimizer.step()
    state.optimizer.zero_grad()
    if not accelerator.optimizer_step_was_skipped:  # on fp16 overflow the weights did not move, nor may the schedule
        state.scheduler.step()
    return accelerator.reduce(total_loss, reduction="sum"), grad_norm


def micro_batch_loss(
    accelerator: Accelerator, network: nn.Module, split: EncodedSplit, rows: Indices, loss_sum: LossSum
) -> Tensor:
    """The loss summed over the targets of ``rows``; 0, with a gradient of 0, where there are none."""
    batch = (split.batch(rows) if rows else split.empty_batch()).to(accelerator.device)
    return loss_sum(network(**batch.inputs).logits, batch.labels)  # accelerate casts, and gives logits in fp32


def seed_dropout(seed: int, step: int, micro_batch: int) -> None:
    """Make what dropout draws a function of the run's seed and the place in the run, in any number of processes."""
    torch.manual_seed(int(np.random.SeedSequence((seed, step, micro_batch)).generate_state(1, np.uint64)[0]))
