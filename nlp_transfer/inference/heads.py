"""The head of one adapter, on hidden states that were computed for many."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from nlp_transfer.checkpoints import encoder_of
from nlp_transfer.errors import ArtifactError, first_line


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
    skeleton.load_state_dict(
        {name: tensor.float().clone() for name, tensor in tensors.items()}, assign=True, strict=True
    )
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


@torch.no_grad()
def refuse_unshareable(head: PreTrainedModel, padding_side: str, folder: Path) -> None:
    """Raises ArtifactError where a head needs more than hidden states and their mask: decoders look for the last token
    in the ids, and then hidden states of padding would count.
    """
    device = next(head.parameters()).device
    mask = torch.ones(2, 4, dtype=torch.int64, device=device)
    padded = slice(2, None) if padding_side == "right" else slice(0, 2)
    mask[1, padded] = 0
    hidden = torch.randn(2, 4, head.config.hidden_size).to(device)
    other = hidden.clone()
    other[1, padded] += 1
    try:
        found = [head_logits(head, states, {"attention_mask": mask}) for states in (hidden, other)]
        counts = [logits[1][mask[1] == 1] if logits.dim() == 3 else logits[1] for logits in found]
    except Exception as error:  # whatever such a head does without what it needs
        raise ArtifactError(f"{folder}: {CANNOT_SHARE} ({first_line(error)[:100]})") from error
    if not torch.allclose(counts[0], counts[1], atol=1e-5, equal_nan=True):
        raise ArtifactError(f"{folder}: {CANNOT_SHARE}")


CANNOT_SHARE = "its head needs more than hidden states, so it cannot share a base. Use nt.load."
