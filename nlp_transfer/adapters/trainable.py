"""The weights that training changes."""

from __future__ import annotations

from torch import Tensor, nn


def count_parameters(network: nn.Module) -> tuple[int, int]:
    """(trainable, all) numbers of weights."""
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return trainable, sum(p.numel() for p in network.parameters())


def trainable_state(network: nn.Module) -> dict[str, Tensor]:
    """The weights that training changes, by name. They are not copied."""
    return {name: p.detach() for name, p in network.named_parameters() if p.requires_grad}
