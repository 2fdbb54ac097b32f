"""Linear layers beside which every row of a batch has the low-rank product of its own adapter.

The products of a mixed batch are two batched matrix products a layer, whatever the number of adapters; what a call
computes with is held by that call alone, so that threads do not see each other's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LowRank = tuple[Tensor, Tensor]
"""Shapes ``(in, rank)`` and ``(rank, out)``; the second is scaled. Stacked, with the adapters in front."""
PROBE_ROWS, PROBE_TOKENS = 3, 5


@dataclass(frozen=True)
class Call:
    """Which adapter each row of one forward pass has."""

    layers: Mapping[str, LowRank]
    """Stacked, by the name of the layer."""
    rows: Tensor
    """Number of each row's adapter, of shape ``(rows,)``."""
    only: int | None
    """The adapter, where all rows have the same."""


CALL: ContextVar[Call] = ContextVar("call")
SEEN: ContextVar[dict[str, set[int | None]]] = ContextVar("seen")


@contextmanager
def calling(call: Call) -> Iterator[None]:
    token = CALL.set(call)
    try:
        yield
    finally:
        CALL.reset(token)


class BankLinear(nn.Module):
    """``W x + b``, and the product of each row's adapter. Takes the weights of ``linear``; they are not copied."""

    def __init__(self, linear: nn.Linear, name: str) -> None:
        super().__init__()
        self.weight, self.bias, self.name = linear.weight, linear.bias, name
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.row_dim = 0

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight, self.bias)
        if (seen := SEEN.get(None)) is not None:
            seen.setdefault(self.name, set()).add(row_dim(x))
            return y
        call = CALL.get()
        if self.name not in call.layers:
            return y
        down, up = call.layers[self.name]
        if call.only is not None:
            low = x.reshape(-1, self.in_features) @ down[call.only]
            y.view(-1, self.out_features).addmm_(low, up[call.only].to(y.dtype))
            return y
        by_row = x.movedim(self.row_dim, 0)
        flat = by_row.reshape(len(by_row), -1, self.in_features)
        low = torch.bmm(flat, down[call.rows])
        if self.row_dim == 0:  # added where it lies, without room for the product; autocast does not look into that
            y.view(len(flat), -1, self.out_features).baddbmm_(low, up[call.rows].to(y.dtype))
            return y
        products = torch.bmm(low, up[call.rows])
        return y + products.reshape(*by_row.shape[:-1], self.out_features).movedim(0, self.row_dim)


def row_dim(x: Tensor) -> int | None:
    """Where the rows of a probe stand; None where all rows share what is computed."""
    return next((dim for dim in range(x.dim() - 1) if x.shape[dim] == PROBE_ROWS), None)


@torch.no_grad()
def learn_row_dims(encoder: nn.Module, pad: int) -> bool:
    """Look where each layer finds its rows. Gives whether they can be mixed: DeBERTa projects its relative positions
    once for all rows, so that a batch can only hold rows of one adapter.
    """
    ids = torch.full((PROBE_ROWS, PROBE_TOKENS), pad, device=next(encoder.parameters()).device)
    seen: dict[str, set[int | None]] = {}
    token = SEEN.set(seen)
    try:
        encoder(input_ids=ids, attention_mask=torch.ones_like(ids))
    finally:
        SEEN.reset(token)
    for layer in encoder.modules():
        if isinstance(layer, BankLinear):
            layer.row_dim = min((dim for dim in seen.get(layer.name, ()) if dim is not None), default=0)
    return all(len(dims) == 1 and None not in dims for dims in seen.values())


def replace_linears(encoder: nn.Module, prefix: str) -> None:
    """Put a ``BankLinear`` in the place of every linear layer of the encoder; names are those of the whole network."""
    for path, module in list(encoder.named_modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, BankLinear(child, ".".join(filter(None, (prefix, path, name)))))


def stacked(adapters: Sequence[Mapping[str, LowRank]]) -> dict[str, LowRank]:
    """One pair of tensors a layer, the adapters in front; lower ranks, and layers without, are filled up with zeros."""
    names = {name: pair for adapter in adapters for name, pair in adapter.items()}
    return {name: stack([adapter.get(name) for adapter in adapters], like=names[name]) for name in names}


def stack(pairs: Sequence[LowRank | None], like: LowRank) -> LowRank:
    rank = max(pair[0].shape[1] for pair in pairs if pair is not None)
    down = like[0].new_zeros(len(pairs), like[0].shape[0], rank)
    up = like[1].new_zeros(len(pairs), rank, like[1].shape[1])
    for number, pair in enumerate(pairs):
        if pair is not None:
            own = pair[0].shape[1]
            down[number, :, :own], up[number, :own] = pair
    return down, up


def ranks_of(layers: Mapping[str, LowRank]) -> dict[str, int]:
    return {name: down.shape[1] for name, (down, _) in layers.items()}


def taken_out(layers: Mapping[str, LowRank], number: int, ranks: Mapping[str, int]) -> dict[str, LowRank]:
    """Of one adapter, without what filled it up; views of the stack."""
    return {name: (layers[name][0][number, :, :rank], layers[name][1][number, :rank]) for name, rank in ranks.items()}
