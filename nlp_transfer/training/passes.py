"""Forward and backward passes; where memory runs out, the same in smaller parts, with the same result."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from accelerate import Accelerator
from accelerate.utils.memory import clear_device_cache
from torch import Tensor

from nlp_transfer.data.encoded import Batch
from nlp_transfer.errors import TrainingError, counted, first_line
from nlp_transfer.reporting.progress import say_of_this_process
from nlp_transfer.training.dropout import drawing, part_of
from nlp_transfer.training.parallel import means_gradients
from nlp_transfer.training.state import TrainState
from nlp_transfer.training.zero import engine_backward, uses_zero

ADVICE = "Take a smaller training.batch_tokens or task.max_tokens, or training.gradient_checkpointing."
LossSum = Callable[[Tensor, Tensor], Tensor]
"""Takes logits and labels, gives the loss summed over targets, of shape ``()``."""


OUT_OF_MEMORY = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "DefaultCPUAllocator: can't allocate memory")
"""What torch says where it has no type for it."""


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)


@contextmanager
def advice_where_memory_ends() -> Iterator[None]:
    """For what cannot be made in parts: the sum over processes, the optimizer's step, validation."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, TrainingError) or not is_out_of_memory(error):
            raise
        raise TrainingError(f"Memory ran out ({first_line(error).split('. ')[0]}). {ADVICE}") from error


def add_gradients(
    accelerator: Accelerator,
    state: TrainState,
    batches: Sequence[Batch],
    loss_sum: LossSum,
    num_targets: int,
    seed: Callable[[int], None],
) -> Tensor:
    """Sum the gradients of this process's micro-batches, and return their losses, each divided by ``num_targets``.

    ``seed`` sets the random numbers for the micro-batch of the given place. When memory runs out, all micro-batches are
    done again in parts of half as many rows: same rows, same draws of dropout, and up to rounding the same gradient.
    The size that fits is kept in ``state.progress``.

    Raises TrainingError when there is no memory for a single row, and where the network is sharded: the other processes
    then wait in the middle of the same pass.
    """
    while True:
        try:
            losses = [
                backward(
                    accelerator, state, batch, loss_sum, num_targets, partial(seed, turn), last=batch is batches[-1]
                )
                for turn, batch in enumerate(batches)
            ]
            return torch.stack(losses)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            reason = first_line(error).split(". ")[0]
        state.optimizer.zero_grad()
        gc.collect()  # the exception held what the passes had computed
        clear_device_cache()
        state.progress.max_tokens = smaller(accelerator, batches, state.progress.max_tokens, reason)


def backward(
    accelerator: Accelerator,
    state: TrainState,
    batch: Batch,
    loss_sum: LossSum,
    num_targets: int,
    seed: Callable[[], None],
    *,
    last: bool,
) -> Tensor:
    """Add the gradient of the loss of ``batch``, and return that loss. ``last`` of the step's, or not."""
    device = accelerator.device
    weight = accelerator.num_processes if means_gradients(accelerator) else 1
    total = torch.zeros((), device=device)
    for start, stop in parts(batch, state.progress.max_tokens):
        seed()
        part = batch.part(start, stop)
        drawn_for = part_of(batch, start, stop, state.network, unpadded=state.unpadding is not None)
        layout = state.unpadded(part, device)
        part = part.to(device)
        with drawing(drawn_for, device), state.passing(part):
            # accelerate casts, gives logits in fp32, and scales for fp16
            logits = state.network(**part.inputs, **layout).logits
            loss = loss_sum(logits, part.labels) / num_targets
            if uses_zero():
                engine_backward(state.network, loss * weight, last=last)
            else:
                accelerator.backward(loss * weight)
        total += loss.detach()
    return total


def parts(batch: Batch, max_tokens: int | None) -> Iterator[tuple[int, int]]:
    """First and last row + 1 of each forward pass."""
    at_once = rows_at_once(batch, max_tokens)
    for start in range(0, batch.num_rows, at_once):
        yield start, min(start + at_once, batch.num_rows)


def rows_at_once(batch: Batch, max_tokens: int | None) -> int:
    return batch.num_rows if max_tokens is None else min(batch.num_rows, max(1, max_tokens // batch.width))


def smaller(accelerator: Accelerator, batches: Sequence[Batch], max_tokens: int | None, reason: str) -> int:
    """Half of the largest that was computed at once and can be split; raises TrainingError where nothing can be."""
    at_once = [rows_at_once(batch, max_tokens) for batch in batches]
    width = max(batch.width for batch in batches)
    sizes = [rows * batch.width for rows, batch in zip(at_once, batches, strict=True) if rows > 1]
    if means_gradients(accelerator) or not sizes:
        what = (
            "a pass of FSDP or DeepSpeed"
            if means_gradients(accelerator)
            else f"a single row of {counted(width, 'token')}"
        )
        raise TrainingError(f"Memory ran out ({reason}) for {what}, and the passes cannot be made smaller. {ADVICE}")
    wanted = max(sizes) // 2
    say_of_this_process(
        f"Memory ran out ({reason}): from here on a forward pass holds at most {wanted:,} tokens. The steps hold the "
        "same examples as before."
    )
    return wanted
