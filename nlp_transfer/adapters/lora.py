"""Choose what is trained: low-rank adapters and the head, the head alone, or everything."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast, get_args

import peft
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from nlp_transfer.adapters.config import AdapterKind, LoraConfig, LoraInit
from nlp_transfer.adapters.one_product import folded, use_one_product
from nlp_transfer.adapters.targets import lora_targets
from nlp_transfer.checkpoints import HeadKind, Model, quiet_transformers
from nlp_transfer.errors import ConfigError, quoted
from nlp_transfer.reporting.progress import say

PEFT_INIT: dict[LoraInit, Any] = {
    "default": True,
    "gaussian": "gaussian",
    "orthogonal": "orthogonal",
    "pissa": "pissa",
    "olora": "olora",
}
MOVES_THE_BASE: tuple[LoraInit, ...] = ("pissa", "olora")
NO_TARGETS = "dummy-target-modules"
"""PEFT's own word for a model without adapter layers, used where the head alone is trained."""


def add_adapter(model: Model, kind: AdapterKind, lora: LoraConfig, *, seed: int = 0) -> Model:
    """The model with just the weights trainable that ``kind`` names; new weights are drawn from ``seed``.

    Raises ConfigError when ``lora`` does not fit the network. The network is changed in place.
    """
    if kind not in get_args(AdapterKind):
        raise ConfigError(f"The adapter must be one of {quoted(get_args(AdapterKind))}, got {kind!r}.")
    if kind != "lora" and lora != LoraConfig():
        say(f"The settings of lora are not used, for the adapter is {kind}.")
    if kind == "none":
        return model
    config = peft_config(model, lora) if kind == "lora" else head_only_config(model)
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.default_generator.manual_seed(seed)  # and no GPU's
        # autocast_adapter_dtype keeps the adapters in fp32 whatever the base is in
        network = cast(PreTrainedModel, peft.get_peft_model(model.network, config, autocast_adapter_dtype=True))
    use_one_product(network)
    return replace(model, network=network, adapter=kind, moved_by=initial_adapter(network, kind, lora))


def peft_config(model: Model, lora: LoraConfig) -> peft.LoraConfig:
    targets = lora_targets(model.network, lora.target_modules, lora.top_layers)
    smallest = min(min(cast(nn.Linear, model.network.get_submodule(name)).weight.shape) for name in targets)
    if lora.rank > smallest:
        raise ConfigError(
            f"LoraConfig.rank must be at most {smallest}, the smaller side of an adapted layer, got {lora.rank}."
        )
    return peft.LoraConfig(
        task_type=peft_task_type(model.network),
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        init_lora_weights=PEFT_INIT[lora.init],
        target_modules=targets,
        modules_to_save=list(model.head_modules),
    )


def head_only_config(model: Model) -> peft.LoraConfig:
    return peft.LoraConfig(
        task_type=peft_task_type(model.network), target_modules=NO_TARGETS, modules_to_save=list(model.head_modules)
    )


def peft_task_type(network: nn.Module) -> str:
    return "TOKEN_CLS" if head_kind(network) == "token" else "SEQ_CLS"


def head_kind(network: nn.Module) -> HeadKind:
    return "token" if type(network).__name__.endswith("ForTokenClassification") else "sequence"


def initial_adapter(network: PreTrainedModel, kind: AdapterKind, lora: LoraConfig) -> dict[str, Tensor] | None:
    """The adapter as it began, where its beginning was taken out of the frozen weights; None elsewhere.

    PiSSA and OLoRA train beside ``W - s·B0·A0``. Saving ``[A, A0]`` and ``[B, -B0]`` gives an adapter for ``W`` itself.
    """
    if kind != "lora" or lora.init not in MOVES_THE_BASE:
        return None
    state = peft.get_peft_model_state_dict(network, save_embedding_layers=False)
    return {name: tensor.detach().clone() for name, tensor in state.items() if ".lora_A." in name or ".lora_B." in name}


def fold(model: Model) -> Model:
    """A model that only answers from now on: whole weights with the adapter in them, where that changes no answer."""
    network = cast(PreTrainedModel, folded(model.network))
    return model if network is model.network else replace(model, network=network, adapter="none", moved_by=None)


def plain_network(model: Model) -> PreTrainedModel:
    """Without what PEFT puts around it."""
    network = model.network
    return cast(PreTrainedModel, network.get_base_model()) if isinstance(network, peft.PeftModel) else network


def adapter_settings(model: Model) -> dict[str, Any]:
    """What decides, beside its weights, what an adapter computes."""
    if model.adapter != "lora":
        return {}
    config = cast(peft.LoraConfig, cast(peft.PeftModel, model.network).peft_config["default"])
    return {
        "rank": config.r,
        "alpha": config.lora_alpha,
        "dropout": config.lora_dropout,
        "use_rslora": config.use_rslora,
        "use_dora": config.use_dora,
        "init": next((name for name, own in PEFT_INIT.items() if own == config.init_lora_weights), "another"),
    }
