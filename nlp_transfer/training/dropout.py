"""Dropout's draws: quick ones on a CPU, and the same for a micro-batch that is computed in parts."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nlp_transfer.data.encoded import ATTENTION_MASK, Batch

BITS = 16
"""Of a draw: torch draws 53 for each number, which is a tenth of a training step on a CPU. The share that is dropped is
rounded to these, and what is kept is scaled by the rounded one.
"""


@dataclass(frozen=True)
class Range:
    """Which of something a part has, and how many there are."""

    start: int
    size: int
    of: int

    def out_of(self, shape: Sequence[int], dim: int) -> list[int]:
        """The shape with all of them in ``dim``."""
        return [self.of if d == dim else size for d, size in enumerate(shape)]


@dataclass(frozen=True)
class Part:
    """Consecutive rows of a micro-batch."""

    rows: Range
    tokens: Range | None
    """Where padding is left out, so that in the layers each token is a row."""
    width: int
    rows_second: bool
    """Whether layers have tokens first and rows second (XLNet)."""

    def place_in(self, shape: Sequence[int]) -> tuple[int, Range] | None:
        """Which dimension of an activation is cut, and how; None for what all rows share."""
        if self.tokens is not None and len(shape) == 3 and shape[0] == self.tokens.size and shape[1] == 1:
            return 0, self.tokens
        if len(shape) == 3 and shape[0] == 1 and shape[1] not in (1, self.width):
            # DeBERTa's relative positions, which come in a batch of one. (A single row that is as long as their table
            # is taken for them, and draws anew.)
            return None
        dim = 1 if self.rows_second and len(shape) == 3 else 0
        return (dim, self.rows) if len(shape) > dim and shape[dim] == self.rows.size else None


def part_of(batch: Batch, start: int, stop: int, network: nn.Module, *, unpadded: bool) -> Part | None:
    """None where it is the whole batch."""
    if stop - start == batch.num_rows:
        return None
    lengths = batch.inputs[ATTENTION_MASK].sum(1)
    tokens = Range(*(int(part.sum()) for part in (lengths[:start], lengths[start:stop], lengths)))
    is_xlnet = network.config.model_type == "xlnet"  # type: ignore[union-attr]
    return Part(Range(start, stop - start, batch.num_rows), tokens if unpadded else None, batch.width, is_xlnet)


def drawing(part: Part | None, device: torch.device) -> AbstractContextManager[Any]:
    """Around the passes of a micro-batch, or of a part of one. A whole one on a GPU is left to torch."""
    return nullcontext() if part is None and device.type != "cpu" else Draws(part)


class Draws:
    """Within, in this thread, dropout draws for all rows of the micro-batch, and uses what is the part's, so that this
    gets what it would have got in the whole. Dropout inside a fused attention kernel (SDPA on a GPU) cannot be reached:
    there it draws anew.

    The layers of transformers and PEFT look ``torch.nn.functional.dropout`` up when they drop, and ours stands there
    meanwhile; what holds torch's own from before keeps it. (A TorchFunctionMode finds that, too, at the price of a call
    in Python for everything that torch does.)
    """

    def __init__(self, part: Part | None) -> None:
        self.part = part
        self._before: Draws | None = None

    def __enter__(self) -> Draws:
        self._before = current()
        THREAD.draws = self
        SWAP.enter()
        return self

    def __exit__(self, *_: object) -> None:
        SWAP.leave()
        THREAD.draws = self._before

    def dropout(self, input: Tensor, p: float, training: bool, inplace: bool) -> Tensor:  # noqa: A002
        if not training or not 0 < p < 1:
            return SWAP.before(input, p, training, inplace)
        draw = draw_bits if input.device.type == "cpu" else draw_as_torch
        place = self.part.place_in(input.shape) if self.part is not None else None
        if place is None:
            kept = draw(input.shape, p, input)
        else:
            dim, own = place
            of_all = draw(own.out_of(input.shape, dim), p, input)
            kept = of_all.narrow(dim, own.start, own.size).clone()  # the backward pass holds this, and not all rows'
        if draw is draw_as_torch:  # not by a factor that is rounded to the input's type
            return input * kept / (1 - p)
        found: Tensor = Dropped.apply(input, kept, 2**BITS / (2**BITS - num_dropped(p)))  # type: ignore[no-untyped-call]
        return found


class Dropped(torch.autograd.Function):
    """``input`` where ``kept`` is true, times ``scale``; for the way back a byte is held of each number, not four."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, kept: Tensor, scale: float) -> Tensor:  # noqa: A002
        ctx.save_for_backward(kept)
        ctx.scale = scale
        return input * kept.to(input.dtype).mul_(scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (kept,) = ctx.saved_tensors
        return grad * kept.to(grad.dtype).mul_(ctx.scale), None, None


class Swap:
    """``torch.nn.functional.dropout``, and who needs ours in its place."""

    def __init__(self) -> None:
        self.before = F.dropout
        """What stood there when the first thread came; the last one puts it back."""
        self._entered = 0
        self._counting = threading.Lock()

    def enter(self) -> None:
        with self._counting:
            if self._entered == 0:
                self.before, F.dropout = F.dropout, dropout
            self._entered += 1

    def leave(self) -> None:
        with self._counting:
            self._entered -= 1
            if self._entered == 0 and F.dropout is dropout:
                F.dropout = self.before


SWAP = Swap()
THREAD = threading.local()


def current() -> Draws | None:
    """What this thread is within."""
    return getattr(THREAD, "draws", None)


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:  # noqa: A002
    """What was there before, in threads that are within no ``Draws``."""
    draws = current()
    return (SWAP.before if draws is None else draws.dropout)(input, p, training, inplace)


def contexts_of_checkpoint() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """Around what gradient checkpointing computes, and computes again: the latter happens within ``backward``, on a GPU
    in a thread of torch's.
    """
    draws = current()
    return nullcontext(), nullcontext() if draws is None else Draws(draws.part)


def draw_as_torch(shape: Sequence[int], p: float, like: Tensor) -> Tensor:
    """True for what torch's own dropout of a whole micro-batch keeps on a GPU."""
    drawn: Tensor = SWAP.before(torch.ones(shape, dtype=like.dtype, device=like.device), p, True)
    return drawn.ne(0)


def num_dropped(p: float) -> int:
    """Of all numbers of ``BITS`` bits, how many are dropped: never all."""
    numbers: int = 2**BITS
    return min(round(p * numbers), numbers - 1)


def draw_bits(shape: Sequence[int], p: float, like: Tensor) -> Tensor:  # noqa: ARG001
    """False where a number of ``BITS`` bits is below the share ``p`` of all of them; of the given shape."""
    size = math.prod(shape)
    words = torch.empty(-(-size * BITS // 64), dtype=torch.int64)
    words.random_(torch.iinfo(torch.int64).min, None)  # all 64 bits: a plain random_ leaves the highest one zero
    numbers = words.view(torch.int16)[:size].view(*shape)
    return numbers.ge(num_dropped(p) - 2 ** (BITS - 1))
