"""Dropout's draws: quick ones on a CPU, and the same for a micro-batch that is computed in parts."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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

    Every layer that drops calls ``torch.nn.functional.dropout``, which ours takes the place of. (A TorchFunctionMode
    finds it too, at the price of a call in Python for everything else that torch does.)
    """

    entered = 0
    """How many there are, in all threads."""

    def __init__(self, part: Part | None) -> None:
        self.part = part
        self._before: Draws | None = None

    def __enter__(self) -> Draws:
        self._before = CURRENT.get()
        CURRENT.set(self)
        count_entered(1)
        return self

    def __exit__(self, *_: object) -> None:
        count_entered(-1)
        CURRENT.set(self._before)

    def dropout(self, input: Tensor, p: float, training: bool, inplace: bool) -> Tensor:  # noqa: A002
        if not training or not 0 < p < 1:
            return TORCH_DROPOUT(input, p, training, inplace)
        draw = draw_bits if input.device.type == "cpu" else draw_as_torch
        place = self.part.place_in(input.shape) if self.part is not None else None
        if place is None:
            return input * draw(input.shape, p, input)
        dim, own = place
        drawn = draw(own.out_of(input.shape, dim), p, input).narrow(dim, own.start, own.size)
        return input * drawn.clone()  # the backward pass holds this, and not the draw for all rows


CURRENT: ContextVar[Draws | None] = ContextVar("CURRENT", default=None)
COUNTING = threading.Lock()
TORCH_DROPOUT = F.dropout


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:  # noqa: A002
    """Torch's own in threads that are within no ``Draws``."""
    current = CURRENT.get()
    if current is None:
        return TORCH_DROPOUT(input, p, training, inplace)
    return current.dropout(input, p, training, inplace)


def count_entered(more: int) -> None:
    """Torch has its own again when the last thread is out."""
    with COUNTING:
        Draws.entered += more
        F.dropout = dropout if Draws.entered else TORCH_DROPOUT


def contexts_of_checkpoint() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """Around what gradient checkpointing computes, and computes again: the latter happens within ``backward``, on a GPU
    in a thread of torch's.
    """
    current = CURRENT.get()
    return nullcontext(), nullcontext() if current is None else Draws(current.part)


def draw_as_torch(shape: Sequence[int], p: float, like: Tensor) -> Tensor:
    """What a whole micro-batch is multiplied with by torch's own dropout on a GPU."""
    drawn: Tensor = TORCH_DROPOUT(torch.ones(shape, dtype=like.dtype, device=like.device), p, True)
    return drawn


def draw_bits(shape: Sequence[int], p: float, like: Tensor) -> Tensor:
    """0 where a number of ``BITS`` bits is below the share ``p`` of all of them; of the given shape."""
    size, dropped = math.prod(shape), min(round(p * 2**BITS), 2**BITS - 1)
    words = torch.empty(-(-size * BITS // 64), dtype=torch.int64)
    words.random_(torch.iinfo(torch.int64).min, None)  # all 64 bits: a plain random_ leaves the highest one zero
    numbers = words.view(torch.int16)[:size].view(*shape)
    kept = numbers.ge(dropped - 2 ** (BITS - 1))
    return kept.to(like.dtype).mul_(2**BITS / (2**BITS - dropped))
