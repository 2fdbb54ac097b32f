"""The training loop: steps of rows go in, one result per optimizer step comes out."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from nlp_transfer.data.batching import Step
from nlp_transfer.data.encoded import Batch
from nlp_transfer.data.loading import Loading
from nlp_transfer.training.defaults import TrainingPlan
from nlp_transfer.training.optim import set_learning_rate
from nlp_transfer.training.parallel import gathered, sum_gradients, whole
from nlp_transfer.training.passes import LossSum, add_gradients
from nlp_transfer.training.state import TrainState
from nlp_transfer.training.zero import engine_step, uses_zero


@dataclass(frozen=True)
class StepResult:
    """What one step did. The tensors stay on the device."""

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
    moved: bool
    """Whether the weights have changed."""
    suspects: tuple[int, ...]
    """Where loss or gradient is not finite: the rows it may come from. An fp16 overflow, which the scaler repairs, is
    no such case."""


def train_steps(
    accelerator: Accelerator,
    state: TrainState,
    loading: Loading,
    loss_sum: LossSum,
    plan: TrainingPlan,
    max_grad_norm: float,
) -> Iterator[StepResult]:
    """Train to the end of the plan, handing control back after every optimizer step.

    What happens between steps is the caller's ``for`` body: log, evaluate, save, or break. All that a step does follows
    from ``state``, so a run that goes on from a saved one does the same steps.
    """
    progress = state.progress
    while progress.epoch < plan.num_epochs:
        epoch = progress.epoch + 1
        steps = plan.batches.steps(progress.epoch)[progress.steps_in_epoch :]
        shares = [step.share(accelerator.process_index, accelerator.num_processes) for step in steps]
        batches = loading.batches([rows for share in shares for rows in share], progress.epoch)
        for step, share in zip(steps, shares, strict=True):
            learning_rate = set_learning_rate(state.optimizer, state.schedule(progress.updates))
            own = list(islice(batches, len(share)))
            seed = (plan.batches.seed, progress.step)
            loss, grad_norm, moved, suspects = take_step(accelerator, state, step, own, loss_sum, max_grad_norm, seed)
            progress.count(moved=moved, is_finite=not suspects, ends_epoch=step.ends_epoch)
            yield StepResult(
                step=progress.step,
                epoch=epoch,
                loss=loss,
                grad_norm=grad_norm,
                learning_rate=learning_rate,
                num_rows=sum(map(len, step.micro_batches)),
                num_targets=step.num_targets,
                ends_epoch=step.ends_epoch,
                moved=moved,
                suspects=suspects,
            )


def take_step(
    accelerator: Accelerator,
    state: TrainState,
    step: Step,
    batches: Sequence[Batch],
    loss_sum: LossSum,
    max_grad_norm: float,
    seed: tuple[int, int],
) -> tuple[Tensor, Tensor, bool, tuple[int, ...]]:
    """Make one optimizer step of ``batches``, this process's share of ``step``.

    Returns its mean loss, its gradient norm, whether the weights moved, and the suspects: see ``StepResult``.

    The gradient is that of the sum over all targets of the step divided by their number, so how the targets are
    spread over micro-batches and processes does not change it. (The mean of micro-batch means, which the usual
    trainers take, points elsewhere: transformers#47688.) Where it is not finite, the weights stay as they are.
    """
    state.train()
    processes, own = accelerator.num_processes, accelerator.process_index
    losses = add_gradients(
        accelerator,
        state,
        batches,
        loss_sum,
        max(1, step.num_targets),
        lambda turn: seed_draws(*seed, turn * processes + own),
    )
    sum_gradients(accelerator, state.network)
    loss = accelerator.reduce(losses.sum(), reduction="sum")
    has_loss = bool(loss.isfinite())
    grad_norm, moved = (
        engine_step(state.network) if uses_zero() else change_weights(accelerator, state, has_loss, max_grad_norm)
    )
    is_finite = has_loss and (bool(grad_norm.isfinite()) or still_scales(accelerator))
    return loss, grad_norm, moved, () if is_finite else suspects_of(accelerator, step, losses)


def change_weights(
    accelerator: Accelerator, state: TrainState, has_loss: bool, max_grad_norm: float
) -> tuple[Tensor, bool]:
    """Clip the gradient and step where it and the loss are finite; gives its norm, and whether the weights moved."""
    grad_norm = whole(accelerator.clip_grad_norm_(state.network.parameters(), max_grad_norm))
    has_gradient = bool(grad_norm.isfinite())
    if has_loss and (has_gradient or accelerator.scaler is not None):
        state.optimizer.step()  # in fp16 the scaler looks for an overflow, leaves the step out and scales less
    elif accelerator.scaler is not None:
        accelerator.scaler.update()
    state.optimizer.zero_grad()
    return grad_norm, has_loss and has_gradient and not accelerator.optimizer_step_was_skipped


def still_scales(accelerator: Accelerator) -> bool:
    """Whether an fp16 gradient that is not finite may be the scaler's doing: it then scales by less."""
    return accelerator.scaler is not None and accelerator.scaler.get_scale() >= 1


def suspects_of(accelerator: Accelerator, step: Step, losses: Tensor) -> tuple[int, ...]:
    """The rows of the micro-batches, of all processes, whose loss is not finite; of all where that is none."""
    share = step.share(accelerator.process_index, accelerator.num_processes)
    own = [rows for rows, loss in zip(share, losses.tolist(), strict=True) if not np.isfinite(loss)]
    found = [rows for rows_of_one in gathered(own) for rows in rows_of_one]
    return tuple(sorted(i for rows in found or step.micro_batches for i in rows))


def seed_draws(seed: int, step: int, micro_batch: int) -> None:
    """Make what dropout draws, and a loss of the user's, a function of the run's seed and the place in the run."""
    drawn = np.random.SeedSequence((seed, step, micro_batch)).generate_state(3, np.uint64)
    torch.manual_seed(int(drawn[0]))
    random.seed(int(drawn[1]))
    np.random.seed(int(drawn[2]) % 2**32)
