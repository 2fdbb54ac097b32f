"""Which linear layers of an encoder get an adapter, read from the encoder's own structure.

PEFT keeps a table by model type. It has no entry for ModernBERT, DistilBERT, ALBERT, MPNet, CamemBERT and others, and
its ``all-linear`` fails for them with a token head.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn
from transformers import PreTrainedModel

from nlp_transfer.errors import ConfigError, did_you_mean

IN_A_LAYER = re.compile(r"\.(\d+)\.")
"""The number that a module has in the list of an encoder's layers."""


def lora_targets(network: PreTrainedModel, wanted: Sequence[str] | None, top_layers: int | None = None) -> list[str]:
    """Full names of the linear layers to adapt: all in the encoder's numbered layers, or those asked for.

    Poolers and embedding projections stand outside of those; an adapted pooler made training less steady. Names are
    full ones because PEFT matches endings, and an ending of the encoder's may also occur in the head.
    """
    prefix = f"{network.base_model_prefix}."
    linears = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(prefix) and IN_A_LAYER.search(name)
    ]
    if not linears:
        raise ConfigError(
            f"{type(network).__name__} has no linear layers that LoRA could adapt. Take adapter 'head' or 'none'."
        )
    if top_layers is not None:
        linears = in_top_layers(linears, network, top_layers)
    if wanted is None:
        return linears
    endings = sorted({last_part(name) for name in linears})
    if unknown := [name for name in wanted if name not in endings]:
        raise ConfigError(
            f"LoraConfig.target_modules {unknown} name no linear layer of {type(network).__name__}. "
            f"Its linear layers end in {endings}.{did_you_mean(unknown[0], endings)} Left out, all of them are adapted."
        )
    return [name for name in linears if last_part(name) in wanted]


def in_top_layers(names: Sequence[str], network: PreTrainedModel, top_layers: int) -> list[str]:
    """Those of the last layers. Raises ConfigError for encoders without as many, and where layers share weights."""
    numbers = {name: int(found.group(1)) for name in names if (found := IN_A_LAYER.search(name))}
    number = max(numbers.values()) + 1
    if top_layers > number or number != network.config.num_hidden_layers:
        raise ConfigError(
            f"LoraConfig.top_layers must be at most the {number} separate layers of {type(network).__name__}, got "
            f"{top_layers}."
            if top_layers > number
            else f"LoraConfig.top_layers: the layers of {type(network).__name__} are not separate ones. Leave it out."
        )
    return [name for name in names if numbers[name] >= number - top_layers]


def last_part(name: str) -> str:
    return name.rpartition(".")[2]
