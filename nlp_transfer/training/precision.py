"""Which number type matrix products are computed in, and the processes of a run."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, GradientAccumulationPlugin

from nlp_transfer.errors import ConfigError
from nlp_transfer.training.config import MixedPrecision
from nlp_transfer.training.processes import processes

SUPPORTED = (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU)


def make_accelerator(mixed_precision: MixedPrecision, *, some_weights_unused: bool = False) -> Accelerator:
    """Raises ConfigError for a type that this hardware does not compute in, and for FSDP, DeepSpeed and the like.

    ``some_weights_unused``: trained weights may have no part in the loss (XLNet's mask embedding, if all is trained).
    """
    chosen = choose_precision(mixed_precision, processes().device)
    # accelerate keeps one state a process and refuses to change its precision; every fit makes its own choice
    AcceleratorState._reset_state()
    ddp = DistributedDataParallelKwargs(find_unused_parameters=some_weights_unused, broadcast_buffers=False)
    # stated, since accelerate would divide the loss by what the environment says
    once = GradientAccumulationPlugin(num_steps=1)
    accelerator = Accelerator(mixed_precision=chosen, kwargs_handlers=[ddp], gradient_accumulation_plugin=once)
    if accelerator.distributed_type not in SUPPORTED:
        raise ConfigError(
            f"accelerate is configured for {accelerator.distributed_type.value}, which is not supported; take one "
            "process, or several with a whole copy of the network each (MULTI_GPU, MULTI_CPU)."
        )
    return accelerator


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


def runs_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())
