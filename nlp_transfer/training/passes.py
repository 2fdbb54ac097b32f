"""Forward and backward passes; where memory runs out, the same in smaller parts, with the same result."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils.memory import clear_device_cache
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nlp_transfer.data.encoded import Batch
from nlp_transfer.errors import TrainingError, counted, first_line
from nlp_transfer.reporting.progress import say_of_this_process
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
    batch = batch.to(accelerator.device)
    weight = accelerator.num_processes if means_gradients(accelerator) else 1
    total = torch.zeros((), device=accelerator.device)
    for start, stop in parts(batch, state.progress.max_tokens):
        seed()
        part = batch.part(start, stop)
        with same_draws(start, stop, batch, state.network), state.passing(part):
            # accelerate casts, gives logits in fp32, and scales for fp16
            loss = loss_sum(state.network(**part.inputs).logits, part.labels) / num_targets
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
    """Half of what was computed at once; raises TrainingError where that cannot be."""
    at_once = [rows_at_once(batch, max_tokens) for batch in batches]
    width = max(batch.width for batch in batches)
    if means_gradients(accelerator) or max(at_once) == 1:
        what = (
            "a pass of FSDP or DeepSpeed"
            if means_gradients(accelerator)
            else f"a single row of {counted(width, 'token')}"
        )
        raise TrainingError(f"Memory ran out ({reason}) for {what}, and the passes cannot be made smaller. {ADVICE}")
    wanted = max(rows * batch.width for rows, batch in zip(at_once, batches, strict=True)) // 2
    say_of_this_process(
        f"Memory ran out ({reason}): from here on a forward pass holds at most {wanted:,} tokens. The steps hold the "
        "same examples as before."
    )
    return wanted


def same_draws(start: int, stop: int, batch: Batch, network: nn.Module) -> AbstractContextManager[Any]:
    if stop - start == batch.num_rows:
        return nullcontext()
    return DropoutOfPart(start, stop, batch, rows_second=network.config.model_type == "xlnet")  # type: ignore[union-attr]


class DropoutOfPart(TorchFunctionMode):
    """Dropout draws for all rows of the micro-batch and uses those of the part, so that a part gets what it would have
    got in the whole. Dropout inside a fused attention kernel (SDPA on a GPU) cannot be reached: there it draws anew.
    """

    def __init__(self, start: int, stop: int, batch: Batch, *, rows_second: bool = False) -> None:
        super().__init__()
        self._start, self._stop, self._num_rows, self._width = start, stop, batch.num_rows, batch.width
        self._rows_second = rows_second

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.dropout:
            return self._dropout(*args, **kwargs)
        return func(*args, **kwargs)

    def _dropout(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:  # noqa: A002
        rows, dim = self._stop - self._start, self._rows_of(input)
        if dim is None or not training:
            return F.dropout(input, p, training, inplace)
        shape = [self._num_rows if d == dim else size for d, size in enumerate(input.shape)]
        drawn = F.dropout(torch.ones(shape, dtype=input.dtype, device=input.device), p, True)
        kept = drawn.narrow(dim, self._start, rows) != 0  # the backward pass holds this, and not the draw for all rows
        scale = torch.ones((), dtype=input.dtype).div_(1 - p).item()
        return torch.where(kept, input * scale, torch.zeros((), dtype=input.dtype, device=input.device))

    def _rows_of(self, input: Tensor) -> int | None:  # noqa: A002
        """The dimension of the rows: the first, in XLNet's layers the second; None for what all rows share."""
        rows = self._stop - self._start
        if rows == 1 and input.dim() == 3 and input.shape[0] == 1 and input.shape[1] != self._width:
            # DeBERTa's relative positions, which come in a batch of one. (A single row that is as long as their table
            # is taken for them, and draws anew.)
            return None
        dim = 1 if self._rows_second and input.dim() == 3 else 0
        return dim if input.dim() > dim and input.shape[dim] == rows else None
