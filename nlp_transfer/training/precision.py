"""Which number type matrix products are computed in, and the processes of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import (
    DistributedType,
    GradientAccumulationPlugin,
    extract_model_from_parallel,
    parse_flag_from_env,
)
from torch import nn
from torch.distributed.fsdp import CPUOffloadPolicy

from nlp_transfer.errors import ConfigError
from nlp_transfer.training.config import MixedPrecision, TrainingConfig
from nlp_transfer.training.processes import processes
from nlp_transfer.training.zero import uses_zero

ORIGINAL = "_original_forward"
"""The attribute in which accelerate keeps a network's own forward pass."""
SUPPORTED = (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU, DistributedType.FSDP)


def make_accelerator(config: TrainingConfig, run_dir: Path | None = None) -> Accelerator:
    """Raises ConfigError for a type that this hardware does not compute in, and for FSDP 1, Megatron and the like."""
    chosen = choose_precision(config.mixed_precision, processes().device)
    # accelerate keeps one state a process and refuses to change its precision; every fit makes its own choice
    AcceleratorState._reset_state()
    # stated, since accelerate would divide the loss by what the environment says
    once = GradientAccumulationPlugin(num_steps=1)
    accelerator = Accelerator(
        mixed_precision=chosen,
        gradient_accumulation_plugin=once,
        log_with=(list(config.trackers) or None) if run_dir else None,
        project_dir=run_dir,
    )
    shard_on_cpu(accelerator)
    kind = accelerator.distributed_type
    if kind not in SUPPORTED or (kind == DistributedType.FSDP and not accelerator.is_fsdp2):
        raise ConfigError(
            f"accelerate is configured for {kind.value}, which is not supported; take one process, several with a "
            "whole copy of the network each (MULTI_GPU, MULTI_CPU), or FSDP with fsdp_version 2."
        )
    if kind == DistributedType.FSDP and isinstance(accelerator.state.fsdp_plugin.cpu_offload, CPUOffloadPolicy):
        raise ConfigError("accelerate is configured to offload FSDP's weights to the CPU, which is not supported.")
    if uses_zero() and chosen == "fp16":
        raise ConfigError("DeepSpeed is run in bf16 or fp32 only; take TrainingConfig.mixed_precision bf16 or no.")
    return accelerator


def shard_on_cpu(accelerator: Accelerator) -> None:
    """accelerate heeds its FSDP settings on accelerators only; everything below works with gloo on the CPU too."""
    wanted = parse_flag_from_env("ACCELERATE_USE_FSDP")
    if wanted and accelerator.device.type == "cpu" and accelerator.num_processes > 1:
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
        accelerator.state.distributed_type = DistributedType.FSDP
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP


def choose_precision(wanted: MixedPrecision, device: torch.device) -> str:
    """auto is bf16 where the hardware multiplies in it, else fp16 on GPUs, else no."""
    has_bf16 = runs_bf16(device)
    if wanted == "auto":
        return "bf16" if has_bf16 else ("fp16" if device.type == "cuda" else "no")
    if wanted == "fp16" and device.type != "cuda":
        raise ConfigError("TrainingConfig.mixed_precision fp16 needs a CUDA GPU; take auto, bf16 or no.")
    if wanted == "bf16" and device.type == "cuda" and not has_bf16:
        raise ConfigError("TrainingConfig.mixed_precision bf16 is not run by this GPU; take auto, fp16 or no.")
    return wanted


def unwrap(network: nn.Module) -> None:
    """Take off what accelerate has put around the network's forward pass for mixed precision. (accelerate itself leaves
    a mark behind, for which the next run would be computed in fp32, and takes off decorators of transformers, too.)
    """
    own = vars(extract_model_from_parallel(network, keep_torch_compile=False))
    own.pop("_is_accelerate_prepared", None)
    if (original := own.pop(ORIGINAL, None)) is not None:
        own["forward"] = original


@contextmanager
def computing_in_fp32(network: nn.Module) -> Iterator[None]:
    """Within, that is not around it, and products are not rounded to TF32."""
    own, products = vars(network), torch.get_float32_matmul_precision()
    around = own.get("forward")
    torch.set_float32_matmul_precision("highest")
    try:
        if ORIGINAL in own:
            own["forward"] = own[ORIGINAL]
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        if ORIGINAL in own:
            own["forward"] = around


def precision_name(mixed_precision: str) -> str:
    """accelerate says "no" where nothing is mixed."""
    return "fp32" if mixed_precision == "no" else mixed_precision


def runs_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())
