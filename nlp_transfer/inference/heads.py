"""The head of one adapter, on hidden states that were computed for many."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from nlp_transfer.checkpoints import encoder_of
from nlp_transfer.errors import ArtifactError


class Given(nn.Module):
    """Stands in for the encoder: what is passed as ``inputs_embeds`` are its last hidden states. The pooler, where
    there is one, belongs to the head.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.pooler = getattr(encoder, "pooler", None)
        self.pooler_activation = getattr(encoder, "pooler_activation", None)  # ALBERT's pooler is a bare linear layer
        self.config = encoder.config

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> BaseModelOutputWithPooling:
        return Hidden(last_hidden_state=inputs_embeds, pooler_output=self._pooled(inputs_embeds))

    def _pooled(self, hidden: Tensor) -> Tensor | None:
        if self.pooler is None:
            return None
        if self.pooler_activation is None:
            pooled: Tensor = self.pooler(hidden)
        else:
            pooled = self.pooler_activation(self.pooler(hidden[:, 0]))
        return pooled


class Hidden(BaseModelOutputWithPooling):
    """XLNet's heads pass on a memory, which there is none of."""

    mems = None


def make_head(skeleton: PreTrainedModel, tensors: Mapping[str, Tensor]) -> PreTrainedModel:
    """``skeleton``, a network without weights (on the meta device), with its encoder replaced and its head filled.

    ``tensors`` are named as in the whole network. Raises ArtifactError where a part of the head stands inside of the
    encoder, so that hidden states cannot be shared.
    """
    prefix = skeleton.base_model_prefix
    setattr(skeleton, prefix, Given(encoder_of(skeleton)))
    wanted = skeleton.state_dict()
    if foreign := sorted(tensors.keys() - wanted.keys()):
        raise ArtifactError(f"{foreign[0]} is trained and stands inside of the encoder, so it cannot be shared.")
    skeleton.load_state_dict({name: tensor.clone() for name, tensor in tensors.items()}, assign=True, strict=True)
    for parameter in skeleton.parameters():
        parameter.requires_grad_(False)
    skeleton.eval()
    return skeleton


@torch.no_grad()
def head_logits(head: PreTrainedModel, hidden: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
    """Shape: ``(rows, labels)`` or ``(rows, tokens, labels)``."""
    known = {name: inputs[name] for name in ("attention_mask", "token_type_ids") if name in inputs}
    logits: Tensor = head(inputs_embeds=hidden, **known).logits
    return logits
