"""The optimizer and its learning-rate schedule."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable

from accelerate.optimizer import AcceleratedOptimizer
from torch import nn
from torch.optim import AdamW

from nlp_transfer.errors import ConfigError
from nlp_transfer.training.config import ScheduleKind, TrainingConfig

Schedule = Callable[[int], float]
"""Takes the number of changes the weights have had, gives the share of the peak learning rate for the next one."""

LAYER_NUMBER = re.compile(r"\.(\d+)\.")


def make_optimizer(network: nn.Module, config: TrainingConfig, learning_rate: float, num_layers: int) -> AdamW:
    """AdamW over the trainable weights (Loshchilov & Hutter, 2019); vectors are not decayed.

    With ``layer_decay`` d, layer k of n learns at d^(n-k) times the rate of the head (Howard & Ruder, 2018). Raises
    ConfigError where layers share their weights (ALBERT), so that there is no order of layers.
    """
    if config.layer_decay < 1 and num_separate_layers(network) < num_layers:
        raise ConfigError("TrainingConfig.layer_decay: the layers of this encoder share their weights. Leave it at 1.")
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            decay = config.weight_decay if parameter.ndim > 1 else 0.0
            depth = layers_below_head(name, num_layers) if config.layer_decay < 1 else 0
            groups[decay, learning_rate * config.layer_decay**depth].append(parameter)
    return AdamW(
        [
            {"params": parameters, "weight_decay": decay, "lr": lr, "peak_lr": lr}
            for (decay, lr), parameters in groups.items()
        ],
        lr=learning_rate,
        fused=True,  # a pass over all weights in place of a dozen small ones for each: a quarter of the time
    )


def num_separate_layers(network: nn.Module) -> int:
    numbers = (LAYER_NUMBER.search(name) for name, _ in network.named_parameters())
    return 1 + max((int(number.group(1)) for number in numbers if number), default=-1)


def layers_below_head(name: str, num_layers: int) -> int:
    """0 for the head, 1 for the top layer, one more for each below, and the embeddings last."""
    if number := LAYER_NUMBER.search(name):
        return num_layers - int(number.group(1))
    return num_layers + 1 if "emb" in name else 0


def make_schedule(num_steps: int, warmup_fraction: float, kind: ScheduleKind) -> Schedule:
    """Rise linearly to the peak over the warm-up, then fall to 0 at ``num_steps``, in a line or a half cosine.

    A function of the changes made, not an object that is stepped: it cannot be stepped twice (accelerate does so once
    for every process), moves with the weights only, and has no state to be saved.
    """
    num_warmup = min(math.ceil(num_steps * warmup_fraction), num_steps - 1)

    def factor(step: int) -> float:
        if step < num_warmup:
            return (step + 1) / (num_warmup + 1)
        done = (step - num_warmup) / max(1, num_steps - num_warmup)
        return max(0.0, 1 - done if kind == "linear" else (1 + math.cos(math.pi * done)) / 2)

    return factor


def set_learning_rate(optimizer: AcceleratedOptimizer, share: float) -> float:
    """Give each group its share of its own peak; returns the highest."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * share
    return max(float(group["lr"]) for group in optimizer.param_groups)
