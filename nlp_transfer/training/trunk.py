"""The frozen trunk: the encoder's lowest layers, where nothing in or below them is trained.

What it makes of a text never changes, so it is computed once, kept, and each epoch costs the layers above alone. For
that it has no dropout, whether its output is kept or not: what is not trained need not be kept from learning by heart.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nlp_transfer.data.encoded import Batch

POOLER = "pooler."
"""What an encoder may have behind its layers."""


class UncutError(Exception):
    """An encoder's layers are not what they are taken for."""


@dataclass(frozen=True)
class Made:
    """The output of the trunk's last layer."""

    hidden: Tensor
    """Shape: ``(rows, tokens, width)``."""
    rest: tuple[Any, ...] | None = None
    """Where layers give a tuple, what comes behind in it."""

    def as_output(self) -> Any:
        return self.hidden if self.rest is None else (self.hidden, *self.rest)


@dataclass(frozen=True)
class Trunk:
    """Where an encoder is cut in two."""

    encoder: nn.Module
    embeddings: nn.Module
    owner: nn.Module
    """What holds the list of layers, under the name ``attribute``."""
    attribute: str
    layers: nn.ModuleList
    depth: int
    """Layers of the trunk."""

    def without_dropout(self) -> None:
        """For the rest of this step: ``train()`` on the whole network has switched it on."""
        for module in (self.embeddings, *self.layers[: self.depth]):
            module.eval()

    @contextmanager
    def replaced(self, made: Made) -> Iterator[None]:
        """Within, the trunk is not computed: its last layer gives ``made``, and stands first in the list.

        It stays there since encoders ask their layers for more than an output. What comes before the layers is computed
        all the same, which costs little, and is not used.
        """
        last = self.layers[self.depth - 1]
        last.forward = lambda *_, **__: made.as_output()
        with self._layers(self.layers[self.depth - 1 :]):
            try:
                yield
            finally:
                del last.forward  # the class's own is there again

    @torch.no_grad()
    def made(self, batch: Batch) -> Made:
        """What the trunk makes of a batch."""
        found: list[Any] = []
        handle = self.layers[self.depth - 1].register_forward_hook(lambda *seen: found.append(seen[-1]))
        try:
            with self._layers(self.layers[: self.depth]):
                self.encoder(**batch.inputs)
        finally:
            handle.remove()
        if len(found) != 1:
            raise UncutError("the last of these layers gave no output, or several")
        output = found[0]
        return Made(output[0], output[1:]) if isinstance(output, tuple) else Made(output)

    @contextmanager
    def _layers(self, layers: nn.ModuleList) -> Iterator[None]:
        setattr(self.owner, self.attribute, layers)
        try:
            yield
        finally:
            setattr(self.owner, self.attribute, self.layers)


def find_trunk(encoder: nn.Module) -> Trunk | None:
    """None for an encoder that is built otherwise, or trained from its first layer on."""
    embeddings = getattr(encoder, "embeddings", None)
    place = layer_list(encoder)
    if place is None or not isinstance(embeddings, nn.Module) or is_trained(embeddings):
        return None
    owner, attribute, layers = place
    depth = next((i for i, layer in enumerate(layers) if is_trained(layer)), len(layers))
    above = {id(p) for layer in layers[depth:] for p in layer.parameters()}
    elsewhere = [name for name, p in encoder.named_parameters() if p.requires_grad and id(p) not in above]
    if depth == 0 or not all(name.startswith(POOLER) for name in elsewhere):
        return None
    return Trunk(encoder, embeddings, owner, attribute, layers, depth)


def layer_list(encoder: nn.Module) -> tuple[nn.Module, str, nn.ModuleList] | None:
    """The list that has as many members as the encoder has layers, and what holds it."""
    number = getattr(encoder.config, "num_hidden_layers", None)
    for module in encoder.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == number:
                return module, name, child
    return None


def is_trained(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())
