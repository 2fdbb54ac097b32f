"""Layers without padding: the tokens of a batch are rows of one token each, and stand together for attention alone.

All that a transformer layer does but for attention, it does to each token by itself; padding is left out of it. Under a
head that reads the first token of a text, the last layer computes that token alone: of the others it needs keys and
values. (Zeng et al., 2022, arXiv 2208.08124, for leaving padding out.)

It hangs on what transformers lets one register: an attention function, which is handed the layout of the batch as a
keyword of the network's forward pass, and hooks on the layers. Without the keyword the network's logits are what they
were, to the bit. Whether an encoder and its head give the same with it is tried; where not, batches stay padded.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributed.tensor import DTensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from nlp_transfer.checkpoints import encoder_of, quiet_transformers
from nlp_transfer.data.encoded import ATTENTION_MASK, moved
from nlp_transfer.training.trunk import layer_list

INNER: dict[str, Any] = {"eager": None, "sdpa": ALL_ATTENTION_FUNCTIONS["sdpa"]}
"""The attention functions that go on by another name; each family has an eager one of its own."""
LAYOUT = "unpadded"
"""The keyword. transformers hands what it does not know on to the attention function."""
PREFIX = "unpadded_"
"""Of the names of our attention functions; transformers' own go on behind them."""
FOUND = "_unpadding"
"""The attribute of a network that says what was found."""
KEYS_AND_VALUES = (("key", "value"), ("k_lin", "v_lin"))
"""What families call the layers that make them. Where one layer makes queries too, it cannot be asked for less."""
PROBED = (9, 5, 2)
"""Tokens in each row by which it is tried."""
TOLERANCE = 1e-4
"""How far logits may be apart, in proportion to the largest: sums are added up in another order."""


@dataclass(frozen=True)
class Layout:
    """Where the tokens of a padded batch stand."""

    rows: int
    width: int
    tokens: Tensor
    """Of each token, its position in the batch read row by row. Shape: ``(tokens,)``."""
    positions: Tensor
    """Of each position, its token; of padding, any. Shape: ``(rows * width,)``."""
    firsts: Tensor | None = None
    """Of each row, its first token, where the last layer computes no other. Shape: ``(rows,)``."""
    everything: Tensor | None = None
    """In the last layer, where its queries are those tokens: what it makes keys and values of."""

    def to(self, device: torch.device) -> Layout:
        firsts = None if self.firsts is None else moved(self.firsts, device)
        return replace(self, tokens=moved(self.tokens, device), positions=moved(self.positions, device), firsts=firsts)

    def packed(self, padded: Tensor) -> Tensor:
        """``(rows, width, ...)`` to ``(tokens, 1, ...)``."""
        flat = padded.reshape(self.rows * self.width, -1)
        found: Tensor = Taken.apply(flat, self.tokens, self.positions, True)  # type: ignore[no-untyped-call]
        return found.view(-1, 1, *padded.shape[2:])

    def padded(self, packed: Tensor) -> Tensor:
        """``(tokens, 1, ...)`` to ``(rows, width, ...)``; what stands in padding has no meaning, and is finite."""
        flat = packed.reshape(len(packed), -1)
        found: Tensor = Taken.apply(flat, self.positions, self.tokens, False)  # type: ignore[no-untyped-call]
        return found.view(self.rows, self.width, *packed.shape[2:])

    def is_padded(self, hidden: Tensor) -> bool:
        return tuple(hidden.shape[:2]) == (self.rows, self.width)


class Taken(torch.autograd.Function):
    """Rows of a matrix, some left out or some twice. What is twice stands in padding, which nothing reads: its gradient
    is zero and need not be added.
    """

    @staticmethod
    def forward(ctx: Any, flat: Tensor, taken: Tensor, back: Tensor, fills: bool) -> Tensor:
        ctx.save_for_backward(taken, back)
        ctx.fills = fills
        return flat.index_select(0, taken)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        taken, back = ctx.saved_tensors
        if not ctx.fills:
            return grad.index_select(0, back), None, None, None
        whole = grad.new_zeros(len(back), grad.shape[1])
        return whole.index_copy_(0, taken, grad), None, None, None


@dataclass(frozen=True)
class Unpadding:
    """What a network can leave out."""

    first_alone: bool
    """Whether its head reads the first token of a row and no other."""

    def arguments(self, inputs: dict[str, Tensor], device: torch.device) -> dict[str, Layout]:
        """Of the network's forward pass on ``device``, beside ``inputs``; none where padding stands first: a head may
        read it. Best made of inputs that are still on the CPU: to learn how many tokens there are, a GPU is waited for.
        """
        mask = inputs[ATTENTION_MASK].bool()
        return {LAYOUT: layout_of(mask, first_alone=self.first_alone).to(device)} if mask[:, 0].all() else {}


def unpadded(unpadding: Unpadding | None, inputs: dict[str, Tensor], device: torch.device) -> dict[str, Layout]:
    """``Unpadding.arguments``; none for a network that is computed with padding."""
    return {} if unpadding is None else unpadding.arguments(inputs, device)


def layout_of(mask: Tensor, *, first_alone: bool) -> Layout:
    """``mask`` is true for tokens, of shape ``(rows, width)``."""
    rows, width = mask.shape
    flat = mask.flatten()
    numbers = flat.cumsum(0)
    positions = (numbers - 1).clamp_(min=0)
    lengths = mask.sum(1)
    firsts = lengths.cumsum(0) - lengths if first_alone else None
    return Layout(rows, width, flat.nonzero().squeeze(1), positions, firsts)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    inner: Any,
    unpadded: Layout | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """Shapes: query, key and value ``(tokens, heads, 1, width)``; the mask ``(rows, 1, queries, keys)``."""
    own = inner or sys.modules[type(module).__module__].eager_attention_forward
    if unpadded is None:
        found: tuple[Tensor, Tensor | None] = own(module, query, key, value, attention_mask, **options)
        return found
    if unpadded.everything is not None:
        return attention_of_firsts(module, query, attention_mask, unpadded, partial(own, **options))
    query, key, value = (unpadded.padded(heads.transpose(1, 2)).transpose(1, 2) for heads in (query, key, value))
    output, weights = own(module, query, key, value, attention_mask, **options)
    return unpadded.packed(output), weights


def attention_of_firsts(
    module: nn.Module, query: Tensor, mask: Tensor | None, layout: Layout, inner: Any
) -> tuple[Tensor, Tensor | None]:
    """``query`` is of one token a row: ``(rows, heads, 1, width)``. The layer has made keys and values of the same
    tokens, which are not used; those of all tokens are made here.
    """
    names = next(names for names in KEYS_AND_VALUES if hasattr(module, names[0]))
    heads, width = query.shape[1], query.shape[3]
    key, value = (
        layout.padded(getattr(module, name)(layout.everything)).view(layout.rows, -1, heads, width).transpose(1, 2)
        for name in names
    )
    found: tuple[Tensor, Tensor | None] = inner(module, query, key, value, None if mask is None else mask[:, :, :1])
    return found


for kind, function in INNER.items():
    AttentionInterface.register(PREFIX + kind, partial(attention, inner=function))
    AttentionMaskInterface.register(PREFIX + kind, ALL_MASK_ATTENTION_FUNCTIONS[kind])


def before_layer(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, is_last: bool) -> Any:
    """A layer that is given a layout is given rows of one token."""
    layout: Layout | None = kwargs.get(LAYOUT)
    if layout is None:
        return None
    hidden = args[0]
    if layout.is_padded(hidden):
        hidden = layout.packed(hidden)
    if (tables := kwargs.get("position_embeddings")) is not None:  # cosines and sines: (1, width, ...)
        spread = (table.expand(layout.rows, *table.shape[1:]) for table in tables)
        kwargs = {**kwargs, "position_embeddings": tuple(map(layout.packed, spread))}
    if is_last and layout.firsts is not None:
        kwargs = {**kwargs, LAYOUT: replace(layout, everything=hidden)}
        hidden = hidden.index_select(0, layout.firsts)
    return (hidden, *args[1:]), kwargs


def after_last_layer(_: nn.Module, __: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    """Whole rows again, but where it has computed their first tokens alone."""
    layout: Layout | None = kwargs.get(LAYOUT)
    hidden = output[0] if isinstance(output, tuple) else output
    if layout is None or layout.firsts is not None or layout.is_padded(hidden):
        return None
    hidden = layout.padded(hidden)
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden


TRYING = threading.Lock()


def unpadding_of(network: nn.Module) -> Unpadding | None:
    """What the network can leave out, which is tried once; None where it is computed with padding.

    Networks that are sharded, or wrapped by DDP or DeepSpeed, are.
    """
    is_peft = hasattr(type(network), "get_base_model")
    plain: nn.Module = network.get_base_model() if is_peft else network  # type: ignore[operator]
    if not isinstance(plain, PreTrainedModel) or any(isinstance(p, DTensor) for p in plain.parameters()):
        return None
    with TRYING:
        if not hasattr(plain, FOUND):
            setattr(plain, FOUND, tried(plain))  # where a copy of the network has it too, with the hooks
        found: Unpadding | None = getattr(plain, FOUND)
    is_set = plain.config._attn_implementation.startswith(PREFIX)  # someone may have chosen another one since
    return found if is_set else None


def attention_name(network: nn.Module) -> str:
    """As transformers calls it."""
    name: str = network.config._attn_implementation.removeprefix(PREFIX)  # type: ignore[union-attr, operator]
    return name


def tried(network: PreTrainedModel) -> Unpadding | None:
    """Hooks and attention function are there after it where the network gives the same with them, and not elsewhere."""
    place, before = layer_list(encoder_of(network)), network.config._attn_implementation
    if place is None or before not in INNER:
        return None
    layers = place[-1]
    handles = [
        layer.register_forward_pre_hook(partial(before_layer, is_last=layer is layers[-1]), with_kwargs=True)
        for layer in layers
    ]
    handles.append(layers[-1].register_forward_hook(after_last_layer, with_kwargs=True))
    modes = [(module, module.training) for module in network.modules()]
    try:
        with quiet_transformers():  # which warns of families with an attention of their own
            network.set_attn_implementation(PREFIX + before)
        for unpadding in (Unpadding(first_alone=True), Unpadding(first_alone=False)):
            if gives_the_same(network, layers[-1], unpadding):
                return unpadding
    finally:
        for module, mode in modes:
            module.training = mode
    for handle in handles:
        handle.remove()
    with quiet_transformers():
        network.set_attn_implementation(before)
    return None


@torch.no_grad()
def gives_the_same(network: PreTrainedModel, last: nn.Module, unpadding: Unpadding) -> bool:
    """Whether the logits of a few rows are those of padded rows, and the last layer has seen no padding."""
    inputs = probe(network)
    seen: list[tuple[int, ...]] = []
    handle = last.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape[:2])))
    network.eval()
    try:
        with torch.autocast(network.device.type, enabled=False):
            expected: Tensor = network(**inputs).logits
            found: Tensor = network(**inputs, **unpadding.arguments(inputs, network.device)).logits
    except Exception:  # noqa: BLE001 - an encoder of another build fails in any way
        return False
    finally:
        handle.remove()
    tokens = len(PROBED) if unpadding.first_alone else sum(PROBED)
    if seen[-1:] != [(tokens, 1)] or found.shape != expected.shape:
        return False
    if expected.dim() == 3:
        mask = inputs[ATTENTION_MASK].bool()
        expected, found = expected[mask], found[mask]
    return bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max().clamp(min=1))


def probe(network: PreTrainedModel) -> dict[str, Tensor]:
    """Rows of unequal length, of tokens that are no padding."""
    pad = network.config.pad_token_id or 0
    rows, width = len(PROBED), max(PROBED)
    mask = torch.arange(width) < torch.tensor(PROBED)[:, None]
    ids = torch.arange(rows * width).view(rows, width) % (network.config.vocab_size - 1)
    ids += ids >= pad
    inputs = {"input_ids": ids.where(mask, torch.tensor(pad)), ATTENTION_MASK: mask.long()}
    return {name: tensor.to(network.device) for name, tensor in inputs.items()}
