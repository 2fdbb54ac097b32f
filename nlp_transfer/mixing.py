"""The weights of several networks put together, one tensor at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

MergeMethod = Literal["average", "ties", "dare"]
Weights = Mapping[str, Tensor]


def mean(states: Sequence[Weights], name: str, shares: Sequence[float]) -> Tensor:
    """With shares of 1 and 0, or where all are equal, one of them bit for bit."""
    first = states[0][name]
    if not first.is_floating_point() or all(torch.equal(state[name], first) for state in states):
        return first
    return sum((share * state[name] for share, state in zip(shares, states, strict=True)), torch.zeros(()))


def combiner(
    method: MergeMethod, shares: Sequence[float], density: float, seed: int
) -> Callable[[Tensor, Sequence[Weights], str], Tensor]:
    """What makes one weight of the encoder from the base's and those of each model."""
    drawn = torch.Generator().manual_seed(seed)

    def combine(base: Tensor, states: Sequence[Weights], name: str) -> Tensor:
        if method == "average" or not base.is_floating_point():
            return mean(states, name, shares)
        changes = [state[name] - base for state in states]
        if method == "dare":
            kept = [torch.bernoulli(torch.full_like(change, density), generator=drawn) for change in changes]
            parts = [share * keep * change / density for share, keep, change in zip(shares, kept, changes, strict=True)]
            return base + sum(parts, torch.zeros(()))
        return base + ties([largest(change, density) for change in changes], shares)

    return combine


def largest(change: Tensor, density: float) -> Tensor:
    """The share of ``density`` that is farthest from 0; the rest is 0."""
    number = max(1, round(density * change.numel()))
    least = change.abs().flatten().kthvalue(change.numel() - number + 1).values
    return torch.where(change.abs() >= least, change, torch.zeros(()))


def ties(changes: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """The weighted mean of those that have the sign of the weighted sum, place by place."""
    weighted = torch.stack([share * change for share, change in zip(shares, changes, strict=True)])
    agrees = (weighted.sign() == weighted.sum(0).sign()) & (weighted != 0)
    share = torch.tensor(shares).view(-1, *[1] * (weighted.dim() - 1))
    total = (agrees * share).sum(0)
    return torch.where(total > 0, (weighted * agrees).sum(0) / total.clamp_min(1e-12), torch.zeros(()))
