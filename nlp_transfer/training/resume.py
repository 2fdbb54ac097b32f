"""From a run to a checkpoint and back, and whether a checkpoint is of the same run."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nlp_transfer import __version__
from nlp_transfer.adapters.lora import adapter_settings
from nlp_transfer.data.encoded import EncodedSplit
from nlp_transfer.fingerprints import code_sha256, hash_json
from nlp_transfer.tasks.base import Task
from nlp_transfer.training.checkpointing import Checkpoint, Tensors
from nlp_transfer.training.config import TrainingConfig
from nlp_transfer.training.defaults import TrainingPlan
from nlp_transfer.training.parallel import gathered, is_sharded, own_part, weights_of, whole
from nlp_transfer.training.prepare import Run

PLANNED = ("num_epochs", "learning_rate")
"""Settings that the plan holds, chosen or given."""
MAY_CHANGE = (
    "batch_size",
    "batch_tokens",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "on_nonfinite",
    "save_every",
    "keep_checkpoints",
    "dataloader_num_workers",
    "process_timeout",
    "trackers",
)
"""Settings that leave the result as it is, up to rounding and the draws of dropout, as long as the steps hold the same
rows."""
MAX_SHOWN = 40
"""Longer values, such as hashes, are cut in messages."""
LIBRARIES = ("torch", "transformers", "peft", "accelerate", "tokenizers")


def capture(run: Run, best: Tensors | None, log: bytes, **origin: Any) -> Checkpoint:
    """With ``origin``, what the run is made of and with. All processes must call it: each may hold a part."""
    weights, scaler = weights_of(run.network), run.accelerator.scaler
    progress = gathered(asdict(run.state.progress))
    state = {
        "progress": progress[0],
        "max_tokens": [one["max_tokens"] for one in progress],
        "scaler": scaler.state_dict() if scaler is not None else None,
        **origin,
    }
    return Checkpoint(
        weights=on_cpu(weights),
        optimizer=on_cpu(optimizer_state(weights, run.state.optimizer.optimizer)),
        best=best,
        state=state,
        log=log,
    )


def restore(run: Run, checkpoint: Checkpoint) -> None:
    """Put the run where the checkpoint was made."""
    weights = weights_of(run.network)
    with torch.no_grad():
        for name, parameter in weights.items():
            parameter.copy_(own_part(checkpoint.weights[name], parameter))
    set_optimizer_state(weights, run.state.optimizer.optimizer, checkpoint.optimizer)
    state = checkpoint.state
    for name, value in state["progress"].items():
        setattr(run.state.progress, name, value)
    limits = state["max_tokens"]
    own = run.accelerator.process_index
    known = [limit for limit in limits if limit is not None]
    as_many = len(limits) == run.accelerator.num_processes
    run.state.progress.max_tokens = limits[own] if as_many else min(known, default=None)
    if run.accelerator.scaler is not None and state["scaler"] is not None:
        run.accelerator.scaler.load_state_dict(state["scaler"])


def on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole, and copies: the originals go on changing."""
    return {name: whole(tensor).detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def optimizer_state(weights: Mapping[str, nn.Parameter], optimizer: Optimizer) -> dict[str, Tensor]:
    """Under ``weight name/quantity``."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in weights.items()}
    return {
        f"{names[parameter]}/{quantity}": value
        for parameter, quantities in optimizer.state.items()
        for quantity, value in quantities.items()
    }


def set_optimizer_state(weights: Mapping[str, nn.Parameter], optimizer: Optimizer, saved: Tensors) -> None:
    for key, value in saved.items():
        name, _, quantity = key.rpartition("/")
        parameter = weights[name]
        # torch counts steps in a scalar on the CPU; what is as large as the weight lies where the weight does.
        # A copy: safetensors maps a tensor to where it lies in the file, and some processors round by alignment
        own = own_part(value, parameter) if value.shape == parameter.shape else value
        optimizer.state[parameter][quantity] = own.clone()


def made_of(
    run: Run, task: Task[Any, Any], held_out: EncodedSplit, config: TrainingConfig, metric: str
) -> dict[str, Any]:
    """All that decides about the result. A run goes on only from a checkpoint that was made of the same."""
    model = run.model
    settings = {name: value for name, value in asdict(config).items() if name not in (*PLANNED, *MAY_CHANGE)}
    shapes = [[name, list(p.shape)] for name, p in model.network.named_parameters() if p.requires_grad]
    return {
        "checkpoint": {"encoder": model.origin.encoder_sha256, "tokenizer": model.origin.tokenizer_sha256},
        "adapter": {"kind": model.adapter, **adapter_settings(model), "weights": hash_json(shapes)},
        "task": {"name": task.name, **{f.name: repr(getattr(task, f.name)) for f in fields(task) if f.compare}},
        "train": hash_split(run.split),
        "validation": hash_split(held_out),
        "training": settings | {"selection_metric": metric, "mixed_precision": run.accelerator.mixed_precision},
        "plan": {name: getattr(run.plan, name) for name in (*PLANNED, "num_steps")},
        "rows of the steps": hash_steps(run.plan),
    }


def made_with(run: Run, config: TrainingConfig) -> dict[str, Any]:
    """What may change the rounding of the result, and what does not matter to it."""
    return {
        "nlp_transfer": f"{__version__} ({code_sha256()[:12]})",
        **{name: version(name) for name in LIBRARIES},
        "machine": platform.machine(),
        "device": str(run.accelerator.device.type),
        "threads": torch.get_num_threads(),
        "processes": run.accelerator.num_processes,
        "sharded": is_sharded(run.accelerator),
        "settings": {name: getattr(config, name) for name in MAY_CHANGE},
    }


def hash_split(split: EncodedSplit) -> str:
    """Over the rows as they are computed, and their labels."""
    digest = hashlib.sha256()
    for array in (*split.inputs.values(), split.offsets, split.labels, split.examples, split.starts, split.positions):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def hash_steps(plan: TrainingPlan) -> str:
    """Over the rows of each step of the first epoch, however they are cut into micro-batches."""
    return hash_json([[i for rows in step.micro_batches for i in rows] for step in plan.batches.steps(0)])


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """``name: before → now`` for each value that differs, nested ones under ``name.inner``."""
    old, new = dict(flat(before)), dict(flat(now))
    return [
        f"{name} {shown(old.get(name))} → {shown(new.get(name))}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", list(value) if isinstance(value, tuple) else value


def shown(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}…" if len(text) > MAX_SHOWN else text
