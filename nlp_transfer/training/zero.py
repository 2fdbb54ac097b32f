"""DeepSpeed's ZeRO 1 and 2: its engine sums the gradients and keeps the optimizer in parts, one in each process.

accelerate's own way to it is left aside, since its ``backward`` makes the optimizer's step too, and its checkpoints are
pickle. Loss, schedule and checkpoints are those of every other run.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from accelerate import DeepSpeedPlugin, PartialState
from accelerate.utils import parse_flag_from_env
from torch import Tensor, nn
from torch.optim import Optimizer

from nlp_transfer.errors import ConfigError
from nlp_transfer.reporting.progress import say

FLAG = "ACCELERATE_USE_DEEPSPEED"
STAGES = (1, 2)
MOMENTS = ("exp_avg", "exp_avg_sq")


@cache
def zero_settings() -> dict[str, Any] | None:
    """The section ``zero_optimization`` of what accelerate was configured with; None where that is not DeepSpeed.

    Asked for before accelerate's state is made: it takes the flag away, so that accelerate makes plain processes.
    Raises ConfigError where DeepSpeed is missing, and for stage 3 and offloading.
    """
    if not parse_flag_from_env(FLAG):
        return None
    os.environ[FLAG] = "false"
    if find_spec("deepspeed") is None:
        raise ConfigError(
            "accelerate is configured for DeepSpeed, which is not installed. Install it "
            "(pip install 'nlp-transfer[deepspeed]'), or configure accelerate anew."
        )
    config = DeepSpeedPlugin().deepspeed_config
    settings = {key: value for key, value in config["zero_optimization"].items() if value != "auto"}
    refused = [key for key in ("offload_optimizer", "offload_param") if is_offloaded(settings.pop(key, None))]
    if settings.get("stage") not in STAGES:
        refused = [f"ZeRO stage {settings.get('stage')}"]
    if refused:
        raise ConfigError(
            f"DeepSpeed is configured for {refused[0]}; take ZeRO stage 1 or 2 without offloading. To spread the "
            "weights as well, take FSDP with fsdp_version 2."
        )
    ignored = sorted(config.keys() & {"optimizer", "scheduler", "fp16", "bf16", "amp", "activation_checkpointing"})
    if ignored:
        say(f"Of DeepSpeed's settings only zero_optimization is heeded; left aside: {', '.join(ignored)}.")
    return settings


def is_offloaded(section: Mapping[str, Any] | None) -> bool:
    return section is not None and section.get("device") not in (None, "none")


def uses_zero() -> bool:
    """Whether the optimizer is kept in parts. A single process keeps all of it in any case."""
    return PartialState().num_processes > 1 and zero_settings() is not None


def make_engine(network: nn.Module, optimizer: Optimizer, max_grad_norm: float) -> nn.Module:
    """A network whose ``backward`` sums gradients over processes, and whose ``step`` clips them and makes the step."""
    os.environ.setdefault("DS_ACCELERATOR", PartialState().device.type)
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)  # it lists all its settings
    import deepspeed

    config = {
        "train_micro_batch_size_per_gpu": 1,  # asked for, and used for nothing but its log
        "gradient_clipping": max_grad_norm,
        "zero_optimization": zero_settings(),
        "zero_allow_untested_optimizer": True,  # torch's AdamW
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": sys.maxsize,
    }
    with redirect_stdout(sys.stderr):
        engine, *_ = deepspeed.initialize(model=network, optimizer=optimizer, dist_init_required=False, config=config)
    return engine  # type: ignore[no-any-return]


def engine_backward(engine: Any, loss: Tensor, *, last: bool) -> None:
    """Add the gradient of a micro-batch; after the ``last`` of a step gradients are summed."""
    engine.set_gradient_accumulation_boundary(last)
    engine.backward(loss)


def engine_step(engine: Any) -> tuple[Tensor, bool]:
    """The norm of the gradient before it was clipped, of shape ``()``, and whether the weights moved: the engine leaves
    out a step whose gradient is not finite.
    """
    engine.step()
    norm = torch.as_tensor(engine.get_global_grad_norm(), dtype=torch.float32)
    return norm.to(engine.device), engine.was_step_applied()


def optimizer_state(engine: Any, weights: Mapping[str, nn.Parameter]) -> Iterator[tuple[str, Tensor]]:
    """Under ``weight name/quantity``, whole; all processes must ask for the next one."""
    from deepspeed.utils import safe_get_full_optimizer_state

    parts = engine.optimizer.optimizer.state
    if not parts:  # no step has been made
        return
    link(engine)
    step = next(iter(parts.values()))["step"]
    for name, weight in weights.items():
        yield f"{name}/step", step
        for moment in MOMENTS:
            yield f"{name}/{moment}", safe_get_full_optimizer_state(weight, moment)


def restore(engine: Any, weights: Mapping[str, nn.Parameter], saved: Iterator[tuple[str, Tensor]]) -> None:
    """Put in the weights, as they are now in the network, and what ``optimizer_state`` gave."""
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

    for weight in weights.values():
        safe_set_full_fp32_param(weight, weight.detach())
    parts, is_first = engine.optimizer.optimizer.state, True
    for key, tensor in saved:
        name, _, quantity = key.rpartition("/")
        if is_first:  # the optimizer makes its state in its first step
            for part in engine.optimizer.single_partition_of_fp32_groups:
                parts[part] = {moment: torch.zeros_like(part) for moment in MOMENTS}
            link(engine)
            is_first = False
        if quantity == "step":
            for part, state in parts.items():
                state["step"] = tensor.to(part.device).clone()
        else:
            safe_set_full_optimizer_state(weights[name], tensor, quantity)


def link(engine: Any) -> None:
    """Let DeepSpeed find the state of each weight in its part. It does so once, after the step of the first group of
    weights, when the others have none yet.
    """
    engine.optimizer._hp_optimizer_states_linked = False
    engine.optimizer._lazy_init_hp_params_optimizer_state()
