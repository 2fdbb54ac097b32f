"""The model folder that a finished run leaves: write it and verify it. ``saved_models`` reads it.

    adapter_config.json, adapter_model.safetensors   adapter and complete head, as plain PEFT reads them
    manifest.json                                    all that those two do not say; see ``manifest``

Where all weights were trained, the folder holds a plain transformers model and its tokenizer instead of the first two.
Only safetensors and JSON are written and read.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

import nlp_transfer
from nlp_transfer.adapters.trainable import trainable_state
from nlp_transfer.checkpoints import Model, Origin, quiet_transformers
from nlp_transfer.durable import as_path, naming, sync_file, sync_folder
from nlp_transfer.errors import ArtifactError, ConfigError, first_line
from nlp_transfer.fingerprints import hash_files
from nlp_transfer.inspection import read_json
from nlp_transfer.known_checkpoints import MINILM_HUB_ID, PACKAGED_MINILM
from nlp_transfer.manifest import ADAPTER_FILES, MANIFEST_FILE, Manifest
from nlp_transfer.metrics import Metrics
from nlp_transfer.saved_models import AnyTask, load_model, logits
from nlp_transfer.training.evaluate import Evaluation
from nlp_transfer.training.log import CONFUSION_FILE, CURVES_FILE
from nlp_transfer.training.processes import processes

NUM_SAMPLES = 8
FROM_THE_HUB = ("README.md", CURVES_FILE, CONFUSION_FILE)
"""What a model that was pulled has beside what its manifest lists."""
MOVED_TOLERANCE = 1e-3
"""PiSSA and OLoRA adapters are rewritten for the base's own weights, which rounds; all others come back exactly."""


def save_model(model: Model, task: AnyTask, evaluation: Evaluation[Any, Any], folder: str | Path) -> Path:
    """Write the model, load it again on a clean base, compare outputs, and only then put it in its place.

    The main process writes, the others wait. Raises ArtifactError when what was loaded answers differently, and
    ConfigError when ``folder`` holds something else than a saved model.
    """
    picked = list(islice(zip(evaluation.examples, evaluation.predictions, strict=True), NUM_SAMPLES))
    tried = Tried(
        scores={evaluation.part: evaluation.metrics},
        samples=[task.record(example, prediction) for example, prediction in picked],
        examples=[example for example, _ in picked],
    )
    return save_tried(model, task, tried, as_path(folder))


@dataclass(frozen=True)
class Tried:
    """What is known of how a model answers."""

    scores: dict[str, Metrics]
    samples: list[dict[str, Any]]
    """A few examples with their predictions."""
    examples: list[Any]
    """The same ones. The model is saved if it answers them from its folder as it does in memory."""


def refuse_existing(folder: Path, *, overwrite: bool) -> None:
    """What is made of a model must not take the place of another one by a slip of the hand."""
    refuse_other_content(folder)
    if folder.exists() and not overwrite:
        raise ConfigError(f"{folder} holds a model already. Name another folder, or pass --overwrite (overwrite=True).")


def save_tried(model: Model, task: AnyTask, tried: Tried, folder: Path) -> Path:
    """As ``save_model``."""
    refuse_other_content(folder)
    group = processes()
    if group.is_main_process:
        staged = staged_for(folder)
        staged.mkdir(parents=True)
        try:
            with naming(folder, sum(tensor.nbytes for tensor in trainable_state(model.network).values())):
                write_model(model, task, tried, staged)
            verify(model, task, tried.examples, staged)
            put_in_place(staged, folder)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    group.wait_for_everyone()
    return folder


def staged_for(folder: Path) -> Path:
    """Where ``folder`` is made until it is whole; what an earlier attempt has left there goes."""
    staged = beside(folder, "part")
    shutil.rmtree(staged, ignore_errors=True)
    return staged


def beside(folder: Path, ending: str) -> Path:
    folder = Path(os.path.abspath(folder))  # "." has no name, and cannot be renamed
    return folder.with_name(f".{folder.name}.{ending}")


def refuse_other_content(folder: Path) -> None:
    """A saved model is replaced as a whole; nothing else may stand in its place, or lie in it."""
    if folder.is_symlink():
        raise ConfigError(f"{folder} is a link. Name the folder itself.")
    if not folder.exists():
        return
    listed = read_json(folder / MANIFEST_FILE).get("sha256") if (folder / MANIFEST_FILE).is_file() else None
    if not isinstance(listed, dict):
        raise ConfigError(f"{folder} is there already and is no saved model. Name another folder.")
    known = {MANIFEST_FILE, *FROM_THE_HUB, *listed}
    if others := sorted(path.name for path in folder.iterdir() if path.name not in known):
        raise ConfigError(f"{folder} would be replaced, and {others[0]} in it is no part of a model. Move it away.")


def write_model(model: Model, task: AnyTask, tried: Tried, folder: Path) -> None:
    try:
        write_network(model, task, folder)
    except SafetensorError as error:  # which hides what the system said
        raise OSError(errno.ENOSPC, first_line(error)) from error
    if model.moved_by is not None:
        move_back(model.moved_by, folder)
    for path in folder.iterdir():
        path.chmod(0o666 & ~umask())  # safetensors writes files that only their owner can read
    manifest = Manifest(
        task=task.settings(),
        max_tokens=task.token_limit(model),
        adapter=model.adapter,
        checkpoint=model.origin,
        scores=tried.scores,
        samples=tried.samples,
        versions={module.__name__: module.__version__ for module in (nlp_transfer, torch, transformers, peft)},
        sha256={},
    )
    write_manifest(manifest, folder)


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """With the hashes of the files as they are."""
    hashes = {path.name: hash_files([path]) for path in sorted(folder.iterdir())}
    text = json.dumps(asdict(replace(manifest, sha256=hashes)), indent=2, ensure_ascii=False)
    (folder / MANIFEST_FILE).write_text(text + "\n", "utf-8")


def write_network(model: Model, task: AnyTask, folder: Path) -> None:
    if model.adapter == "none":
        model.network.config.problem_type = task.problem_type
        with quiet_transformers():
            model.network.save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)
    else:
        model.network.save_pretrained(folder, save_embedding_layers=False)  # else PEFT asks the Hub for the base
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's, a form to fill in
        name_the_base(model.origin, folder / ADAPTER_FILES[0])


def name_the_base(origin: Origin, path: Path) -> None:
    """PEFT writes the local folder that the base was read from, which means nothing elsewhere."""
    config = json.loads(path.read_text("utf-8"))
    config["base_model_name_or_path"] = MINILM_HUB_ID if origin.name == PACKAGED_MINILM else origin.name
    config["revision"] = origin.revision
    config["modules_to_save"] = sorted(set(config["modules_to_save"] or ()))
    if isinstance(config["target_modules"], list):
        config["target_modules"] = sorted(config["target_modules"])  # PEFT's order differs from run to run
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")


def move_back(moved_by: dict[str, Tensor], folder: Path) -> None:
    """Turn an adapter for ``W - s·B0·A0`` into one of twice the rank for ``W``: ``[A; A0]`` and ``[B, -B0]``."""
    config_path, weights_path = (folder / name for name in ADAPTER_FILES)
    weights = load_file(weights_path)
    for name, start in moved_by.items():
        is_down = ".lora_A." in name
        second = start.cpu() if is_down else -start.cpu()
        weights[name] = torch.cat([weights[name], second], dim=0 if is_down else 1).contiguous()
    save_file(weights, weights_path, metadata={"format": "pt"})
    config = json.loads(config_path.read_text("utf-8"))
    config |= {"r": 2 * config["r"], "init_lora_weights": True}
    config["lora_alpha"] *= 2**0.5 if config["use_rslora"] else 2
    config_path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")


def verify(model: Model, task: AnyTask, examples: Sequence[Any], folder: Path) -> None:
    """Raises ArtifactError when the model in ``folder`` does not answer as the one in memory does."""
    again, task_again = load_model(folder)
    ours, theirs = logits(model, task, examples), logits(again, task_again, examples)
    pairs = zip(ours, theirs, strict=True)
    worst = max((float((a - b).abs().max()) for a, b in pairs), default=0.0)
    allowed = MOVED_TOLERANCE if model.moved_by is not None else 0.0
    if not worst <= allowed:
        raise ArtifactError(
            f"The saved model answers differently from the one in memory (logits differ by up to {worst:.3g}, allowed "
            f"is {allowed:.3g}); nothing was saved. Please report this with the checkpoint '{model.origin.name}'."
        )


def put_in_place(staged: Path, folder: Path) -> None:
    """Replace ``folder`` by ``staged``, once the disk has it; a kill in between leaves one of them whole."""
    folder = Path(os.path.abspath(folder))
    for path in staged.rglob("*"):
        (sync_folder if path.is_dir() else sync_file)(path)
    sync_folder(staged)
    old = beside(folder, "old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    try:
        staged.rename(folder)
    except BaseException:  # a signal, too
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
    sync_folder(old.parent)
    shutil.rmtree(old, ignore_errors=True)


def umask() -> int:
    """What the user takes away from the rights of new files; it can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
