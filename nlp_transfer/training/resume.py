"""From a run to a checkpoint and back, and whether a checkpoint is of the same run."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nlp_transfer import __version__
from nlp_transfer.adapters.lora import adapter_settings
from nlp_transfer.data.encoded import EncodedSplit
from nlp_transfer.fingerprints import code_sha256, hash_json, own_code_sha256
from nlp_transfer.labels import LabelSet
from nlp_transfer.tasks.base import Task
from nlp_transfer.training import zero
from nlp_transfer.training.checkpointing import FORMAT, Checkpoint, Tensors
from nlp_transfer.training.config import TrainingConfig
from nlp_transfer.training.defaults import TrainingPlan
from nlp_transfer.training.parallel import (
    gathered,
    is_sharded,
    means_gradients,
    own_part,
    tensors_from_main,
    weights_of,
    whole,
)
from nlp_transfer.training.prepare import Run
from nlp_transfer.training.processes import processes
from nlp_transfer.training.unpadded import attention_name
from nlp_transfer.training.zero import uses_zero

PLANNED = ("num_epochs", "learning_rate")
"""Settings that the plan holds, chosen or given."""
PASSES = ("batch_size", "batch_tokens", "gradient_accumulation_steps", "gradient_checkpointing")
"""Settings that say how a step is computed. Which rows it holds must stay."""
HANDLING = (
    "on_nonfinite",
    "save_every",
    "keep_checkpoints",
    "dataloader_num_workers",
    "process_timeout",
    "trackers",
    "explain",
)
"""Settings that leave the result as it is. (A step that is left out is so in either case of on_nonfinite.)"""
CONSEQUENCES = ("rows of the steps", "adapter.weights")
HASHES = (*CONSEQUENCES, "train data", "validation data", "checkpoint.encoder", "checkpoint.tokenizer")
MAX_SHOWN = 40
"""Of a value, in a message."""
LIBRARIES = ("torch", "transformers", "peft", "accelerate", "tokenizers", "numpy")


@dataclass(frozen=True)
class Origin:
    """What a run is made of, which must stay, and what it is made with, which may change and is printed then."""

    made_of: dict[str, Any]
    made_with: dict[str, dict[str, Any]]

    def changes(self, state: Mapping[str, Any]) -> str:
        """Sentences on what is other than in a checkpoint; empty if nothing is."""
        before = state["made_with"]
        said = ""
        for kind, effect in EFFECTS.items():
            if changed := differences(before.get(kind, {}), self.made_with[kind]):
                said += f" Other than before: {', '.join(changed)} ({effect})."
        limits = [limit for limit in state["max_tokens"] if limit is not None]
        is_split = self.made_with["passes"]["sharded"] or self.made_with["passes"]["DeepSpeed"]
        if not limits or is_split:  # whose passes cannot be made smaller
            return said
        return f"{said} A forward pass holds at most {min(limits):,} tokens, as found before."


EFFECTS = {
    "code": "the result may differ",
    "machine": "the result may differ in rounding",
    "passes": "the result may differ in rounding and in what dropout leaves out",
    "handling": "the result stays the same",
}


def capture(run: Run, best: Tensors | None, log: bytes, origin: Origin) -> Checkpoint:
    """All processes must call it: each may hold a part. What the others hold is kept in the main one alone."""
    weights, scaler = weights_of(run.network), run.accelerator.scaler
    progress = gathered(asdict(run.state.progress))
    state = {
        "format": FORMAT,
        "progress": progress[0],
        "max_tokens": [one["max_tokens"] for one in progress],
        "scaler": scaler.state_dict() if scaler is not None else None,
        "made_of": origin.made_of,
        "made_with": origin.made_with,
    }
    return Checkpoint(
        weights=on_cpu(weights.items()),
        optimizer=on_cpu(optimizer_state(run, weights)),
        best=best,
        state=state,
        log=log,
    )


def restore(run: Run, state: Mapping[str, Any], checkpoint: Checkpoint | None) -> None:
    """Put the run where a checkpoint was made; the main process has it, all have its state."""
    weights = weights_of(run.network)
    with torch.no_grad():
        for name, saved in tensors_from_main(checkpoint.weights if checkpoint else None):
            weights[name].copy_(own_part(saved, weights[name]))
    restore_optimizer(run, weights, tensors_from_main(checkpoint.optimizer if checkpoint else None))
    progress = run.state.progress
    for name, value in state["progress"].items():
        setattr(progress, name, value)
    limits = state["max_tokens"]
    as_many = len(limits) == run.accelerator.num_processes
    known = [limit for limit in limits if limit is not None]
    progress.max_tokens = limits[run.accelerator.process_index] if as_many else min(known, default=None)
    if means_gradients(run.accelerator):
        progress.max_tokens = None  # the limit is that of a run whose passes could be made smaller
    if run.accelerator.scaler is not None and state["scaler"] is not None:
        run.accelerator.scaler.load_state_dict(state["scaler"])


def restore_optimizer(run: Run, weights: Mapping[str, nn.Parameter], tensors: Iterator[tuple[str, Tensor]]) -> None:
    if uses_zero():
        zero.restore(run.state.network, weights, tensors)
        return
    optimizer = run.state.optimizer.optimizer
    for key, saved in tensors:
        name, _, quantity = key.rpartition("/")
        weight = weights[name]
        # the number of steps, too, must lie where the weight does: on a GPU the fused AdamW takes no other.
        # A copy: safetensors maps a tensor to where it lies in the file, and some processors round by alignment
        own = own_part(saved, weight) if saved.shape == weight.shape else saved.to(weight.device)
        optimizer.state[weight][quantity] = own.clone()


def on_cpu(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Whole, and copies, since the originals go on changing; in the main process. The others only help to gather."""
    keeps = processes().is_main_process
    gathered_up = ((name, whole(tensor).detach()) for name, tensor in tensors)
    return {name: tensor.to("cpu", copy=True) for name, tensor in gathered_up if keeps}


def optimizer_state(run: Run, weights: Mapping[str, nn.Parameter]) -> Iterator[tuple[str, Tensor]]:
    """Under ``weight name/quantity``."""
    if uses_zero():
        yield from zero.optimizer_state(run.state.network, weights)
        return
    names: dict[Tensor, str] = {parameter: name for name, parameter in weights.items()}
    for parameter, quantities in run.state.optimizer.optimizer.state.items():
        for quantity, value in quantities.items():
            yield f"{names[parameter]}/{quantity}", value


def made_of(
    run: Run, task: Task[Any, Any], held_out: EncodedSplit, config: TrainingConfig, metric: str
) -> dict[str, Any]:
    """All that decides about the result. A run goes on only from a checkpoint that was made of the same."""
    model = run.model
    settings = {name: value for name, value in asdict(config).items() if name not in (*PLANNED, *PASSES, *HANDLING)}
    shapes = [[name, list(p.shape)] for name, p in model.network.named_parameters() if p.requires_grad]
    return {
        "checkpoint": {"encoder": model.origin.encoder_sha256, "tokenizer": model.origin.tokenizer_sha256},
        "adapter": {"kind": model.adapter, **adapter_settings(model), "weights": hash_json(shapes)},
        "task": {"name": task.name, **{f.name: plain(getattr(task, f.name)) for f in fields(task) if f.compare}},
        "train data": hash_split(run.split),
        "validation data": hash_split(held_out),
        "training": settings | {"selection_metric": metric, "mixed_precision": run.accelerator.mixed_precision},
        "plan": {name: getattr(run.plan, name) for name in PLANNED} | {"rows_per_step": rows_per_step(run.plan)},
        "rows of the steps": hash_steps(run.plan),
    }


def made_with(run: Run, task: Task[Any, Any], config: TrainingConfig) -> dict[str, dict[str, Any]]:
    """By what a change does to the result: see ``EFFECTS``."""
    device = run.accelerator.device
    return {
        "code": {
            "nlp_transfer": f"{__version__} ({code_sha256()[:12]})",
            "recipe or program": own_code_sha256(type(task))[:12],
        },
        "machine": {
            **{name: version(name) for name in LIBRARIES},
            "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "cuda": torch.version.cuda,
            "attention": attention_name(run.model.network),
            "threads": torch.get_num_threads(),
        },
        "passes": {
            "processes": run.accelerator.num_processes,
            "sharded": is_sharded(run.accelerator),
            "DeepSpeed": uses_zero(),
            "frozen layers kept": run.state.frozen is not None and run.state.frozen.states is not None,
            **{name: getattr(config, name) for name in PASSES},
        },
        "handling": {name: getattr(config, name) for name in HANDLING},
    }


def hash_split(split: EncodedSplit) -> str:
    """Over the rows as they are computed, and their labels."""
    digest = hashlib.sha256()
    for array in (*split.inputs.values(), split.offsets, split.labels, split.examples, split.starts, split.positions):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def rows_per_step(plan: TrainingPlan) -> str:
    batches = plan.batches
    if batches.batch_size is None:
        return f"as many as fit {batches.batch_tokens * batches.micro_batches_per_step} tokens"
    return str(batches.batch_size * batches.micro_batches_per_step)


def hash_steps(plan: TrainingPlan) -> str:
    """Over the rows of each step of the first epoch, however they are cut into micro-batches."""
    return hash_json([[i for rows in step.micro_batches for i in rows] for step in plan.batches.steps(0)])


def plain(value: Any) -> Any:
    """As JSON gives it back."""
    if isinstance(value, LabelSet):
        return list(value.names)
    return list(value) if isinstance(value, tuple) else value


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """``name old → new`` for each value that differs, nested ones under ``name.inner``.

    What only follows from another difference is left out, and so are hashes, which say nothing to a reader.
    """
    old, new = dict(flat(before)), dict(flat(now))
    changed = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    if "task.name" in changed:
        changed = ["task.name"]
    telling = [name for name in changed if name not in CONSEQUENCES] or changed
    return [
        f"other {name}" if name in HASHES else f"{name} {' → '.join(shown(old.get(name), new.get(name)))}"
        for name in telling
    ]


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", plain(value)


def shown(old: Any, new: Any) -> list[str]:
    """Long values from a little before where they begin to differ."""
    texts = [str(old), str(new)]
    if max(map(len, texts)) <= MAX_SHOWN:
        return texts
    differing = (i for i, (a, b) in enumerate(zip(*texts, strict=False)) if a != b)
    start = max(0, next(differing, min(map(len, texts))) - 12)
    stop = start + MAX_SHOWN
    return [f"{'…' * (start > 0)}{text[start:stop]}{'…' * (len(text) > stop)}" for text in texts]
