"""LoRA in one matrix product each way, where that computes the same: faster than PEFT's own layer, and no larger.

PEFT computes ``x·Wᵀ + s·(x·Aᵀ)·Bᵀ``: three products, and three sums and scalings of tensors as long as the output. Here
the layer's weight ``M = W + s·B·A`` is formed first, and is gone after

    forward    y  = x·Mᵀ + b
    backward   dx = dy·M = dy·W + s·(dy·B)·A
               dA = s·Bᵀ·dM = s·(dy·B)ᵀ·x          since dM = dyᵀ·x, and a product of three may begin at either end:
               dB = s·dM·Aᵀ = s·dyᵀ·(x·Aᵀ)         dM itself, as large as W, is never made

so that ``x`` is kept for the way back, and at the most ``x·Aᵀ``. Written out from LoRA's definition (Hu et al., 2021,
arXiv 2106.09685).

Forming M takes as long as some hundred rows take. For fewer than the layer has inputs, what the adapter makes of them
is added to ``x·Wᵀ`` where that lies.

The layer stays PEFT's to the outside: the same names, the same files. With dropout before the adapter, DoRA, several
adapters at once, a merged one, or a base that is trained itself, it is PEFT's inside, too.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributed.tensor import DTensor

HOLDING = threading.Lock()


class OneProduct(torch.autograd.Function):
    """Shapes: x ``(..., inputs)``, formed and frozen ``(outputs, inputs)``, down ``(rank, inputs)``, up ``(outputs,
    rank)``. Without ``formed`` the adapter's part is added.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        formed: Tensor | None,
        bias: Tensor | None,
        frozen: Tensor,
        down: Tensor,
        up: Tensor,
        scale: float,
    ) -> Tensor:
        ctx.scale = scale
        if formed is not None:
            ctx.save_for_backward(x, frozen, down, up, None)
            return F.linear(x, formed, bias)
        rows = x.reshape(-1, x.shape[-1])
        below = rows.mm(down.to(x.dtype).t())
        ctx.save_for_backward(x, frozen, down, up, below)
        found = F.linear(rows, frozen.to(x.dtype), bias).addmm_(below, up.to(x.dtype).t(), alpha=scale)
        return found.view(*x.shape[:-1], len(frozen))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, frozen, down, up, below = ctx.saved_tensors
        rows, errors = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])
        small_down, errors_below = down.to(x.dtype), errors.mm((up * ctx.scale).to(x.dtype))
        d_x = None
        if ctx.needs_input_grad[0]:
            d_x = errors.mm(frozen.to(x.dtype)).addmm_(errors_below, small_down).view_as(x)
        d_down = errors_below.t().mm(rows).to(down.dtype)
        below = rows.mm(small_down.t()) if below is None else below
        d_up = errors.t().mm(below).to(up.dtype).mul_(ctx.scale)
        return d_x, None, None, None, d_down, d_up, None


class OneProductLinear(Linear):
    """PEFT's layer, with ``OneProduct`` inside where that is exact: while it trains, and while its weight is held, so
    that it is formed once. Else it is PEFT's to the last bit.
    """

    holders = 0
    formed: tuple[tuple[Any, ...], Tensor] | None = None
    """What tells the adapter from itself after a change, and the weight that was formed of it."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if args or kwargs or not (self.training or self.holders) or not self.is_exact:
            result: Tensor = super().forward(x, *args, **kwargs)
            return result
        dtype, bias = self.compute_dtype(x), self.base_layer.bias
        bias = None if bias is None else bias.to(dtype)
        is_worth_it = self.holders or x.numel() >= x.shape[-1] ** 2
        formed = self.weight_in(dtype) if is_worth_it else None
        arguments = (x.to(dtype), formed, bias, self.frozen, *self.low_rank)
        found: Tensor = OneProduct.apply(*arguments)  # type: ignore[no-untyped-call]
        return found

    @property
    def is_exact(self) -> bool:
        """Whether one adapter is active, alone, and nothing but low-rank products is asked of it."""
        if self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return False
        (name,) = self.active_adapters
        is_plain = name in self.lora_A and name not in self.lora_variant and not self.lora_bias[name]
        if any(parameter.requires_grad for parameter in self.base_layer.parameters()):
            return False
        return is_plain and not (self.training and not isinstance(self.lora_dropout[name], nn.Identity))

    @property
    def low_rank(self) -> tuple[Tensor, Tensor, float]:
        """A ``(rank, inputs)``, B ``(outputs, rank)``, and their product's scale."""
        (name,) = self.active_adapters
        down, up = (cast(Tensor, factor[name].weight) for factor in (self.lora_A, self.lora_B))
        return down, up, self.scaling[name]

    @property
    def frozen(self) -> Tensor:
        return cast(Tensor, self.base_layer.weight)

    def compute_dtype(self, x: Tensor) -> torch.dtype:
        """What autocast would take for a product; autocast itself does not look into a function of its own."""
        kind = x.device.type
        if torch.is_autocast_enabled(kind):
            return torch.get_autocast_dtype(kind)
        return self.frozen.dtype

    def weight_in(self, dtype: torch.dtype) -> Tensor:
        """``W + s·B·A``, added up in the adapter's own type and then rounded."""
        down, up, scale = self.low_rank
        state = (dtype, scale, down._version, down.data_ptr(), up._version, up.data_ptr())
        held = self.formed  # another thread may let go of it
        if held is not None and held[0] == state:
            return held[1]
        with torch.no_grad(), torch.autocast(up.device.type, enabled=False):
            formed = torch.addmm(self.frozen.to(up.dtype), up, down, alpha=scale).to(dtype)
        if self.holders:
            self.formed = state, formed
        return formed


def use_one_product(network: nn.Module) -> None:
    """In all of PEFT's layers that stand beside plain linear ones."""
    for module in network.modules():
        if type(module) is Linear and type(module.base_layer) is nn.Linear and not module.fan_in_fan_out:
            module.__class__ = OneProductLinear  # its names and tensors stay as they are


def is_one_product(network: nn.Module) -> bool:
    """Whether all low-rank products of the network are computed so, in the mode that it is in."""
    layers = [module for module in network.modules() if isinstance(module, Linear)]
    return bool(layers) and all(isinstance(layer, OneProductLinear) and layer.is_exact for layer in layers)


def one_product_layers(network: nn.Module) -> list[OneProductLinear]:
    return [module for module in network.modules() if isinstance(module, OneProductLinear)]


def folded(network: nn.Module) -> nn.Module:
    """The network without adapters, which are in its weights for good; it answers as with its weights held, to the bit.

    Where that cannot be, because its layers are not ``OneProductLinear`` or not exact, the network as it is.
    """
    if not is_one_product(network):
        return network
    for layer in one_product_layers(network):
        layer.frozen.data = layer.weight_in(layer.frozen.dtype)
    plain: nn.Module = network.unload()  # type: ignore[operator]
    return plain


@contextmanager
def weights_held(network: nn.Module) -> Iterator[None]:
    """Within, where adapters do not change, each layer forms its weight once; from any number of threads.

    What is spread over processes is not held.
    """
    layers = [layer for layer in one_product_layers(network) if not isinstance(layer.frozen, DTensor)]
    count_holders(layers, 1)
    try:
        yield
    finally:
        count_holders(layers, -1)


def count_holders(layers: Sequence[OneProductLinear], more: int) -> None:
    """Whoever is the last to leave lets go of the formed weights."""
    with HOLDING:
        for layer in layers:
            layer.holders += more
            layer.formed = layer.formed if layer.holders else None
