"""LoRA in one matrix product each way, where that computes the same: faster than PEFT's own layer, and leaner.

PEFT computes ``x·Wᵀ + s·(x·Aᵀ)·Bᵀ``: four tensors as long as the input are made and kept for the way back. Here the
layer's weight ``M = W + s·B·A`` is formed first, once a step, and

    forward    y  = x·Mᵀ + b
    backward   dx = dy·M
               dA = s·Bᵀ·dM = s·(dy·B)ᵀ·x          since dM = dyᵀ·x, and a product of three may begin at either end:
               dB = s·dM·Aᵀ = s·dyᵀ·(x·Aᵀ)         dM itself, as large as W, is never made

so that just ``x`` is kept. Written out from the definition of LoRA (Hu et al., 2021, arXiv 2106.09685).

The layer stays PEFT's to the outside: the same names, the same files. With dropout before the adapter, DoRA, several
adapters at once or a merged one it is PEFT's inside, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


class OneProduct(torch.autograd.Function):
    """Shapes: x ``(..., inputs)``, formed ``(outputs, inputs)``, down ``(rank, inputs)``, up ``(outputs, rank)``."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, formed: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        ctx.save_for_backward(x, formed, down, up)
        ctx.scale = scale
        return F.linear(x, formed, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, formed, down, up = ctx.saved_tensors
        rows, errors = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])
        scaled_up, small_down = (up * ctx.scale).to(x.dtype), down.to(x.dtype)
        d_x = errors.mm(formed).view_as(x) if ctx.needs_input_grad[0] else None
        d_down = errors.mm(scaled_up).t().mm(rows).to(down.dtype)
        d_up = errors.t().mm(rows.mm(small_down.t())).to(up.dtype).mul_(ctx.scale)
        return d_x, None, None, d_down, d_up, None


class OneProductLinear(Linear):
    """PEFT's layer, with ``OneProduct`` inside where that is exact: while it trains, and while it ``is_held``, in which
    time it keeps its formed weight. Else it is PEFT's to the last bit.
    """

    is_held = False
    formed: Tensor | None = None
    formed_of: tuple[int, ...] = ()
    """What tells the adapter from itself after a change."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if args or kwargs or not (self.training or self.is_held) or not self.is_exact:
            result: Tensor = super().forward(x, *args, **kwargs)
            return result
        dtype, bias = self.compute_dtype(x), self.base_layer.bias
        bias = None if bias is None else bias.to(dtype)
        formed = self.weight_in(dtype)
        found: Tensor = OneProduct.apply(x.to(dtype), formed, bias, *self.low_rank)  # type: ignore[no-untyped-call]
        return found

    @property
    def is_exact(self) -> bool:
        """Whether one adapter is active, alone, and nothing but low-rank products is asked of it."""
        if self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return False
        (name,) = self.active_adapters
        is_plain = name in self.lora_A and name not in self.lora_variant and not self.lora_bias[name]
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
        """``W + s·B·A``, added up in the adapter's own type: in bf16 a small adapter would vanish in rounding."""
        down, up, scale = self.low_rank
        state = (down._version, down.data_ptr(), up._version, up.data_ptr())
        if self.formed is not None and self.formed.dtype == dtype and self.formed_of == state:
            return self.formed
        with torch.no_grad(), torch.autocast(up.device.type, enabled=False):
            formed = torch.addmm(self.frozen, up, down, alpha=scale).to(dtype)
        if self.is_held:
            self.formed, self.formed_of = formed, state
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
    """Within, adapters may not change: each layer forms its weight once. What is spread over processes is not held."""
    layers = [layer for layer in one_product_layers(network) if not isinstance(layer.frozen, DTensor)]
    try:
        for layer in layers:
            layer.is_held = True
        yield
    finally:
        for layer in layers:
            layer.is_held, layer.formed = False, None
