"""The model folder that a finished run leaves: write it, verify it, read it.

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
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any, cast, get_args

import peft
import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

import nlp_transfer
from nlp_transfer.adapters.lora import peft_task_type
from nlp_transfer.adapters.trainable import trainable_state
from nlp_transfer.checkpoints import Model, Origin, described_shapes, load_model as load_checkpoint, quiet_transformers
from nlp_transfer.data.encoded import EncodedSplit
from nlp_transfer.data.long_texts import LongTaggedTexts, LongTexts
from nlp_transfer.durable import naming
from nlp_transfer.errors import ArtifactError, ConfigError, first_line, quoted
from nlp_transfer.fingerprints import hash_files
from nlp_transfer.inspection import (
    adapter_shapes,
    read_json,
    read_shapes,
    refuse_not_finite,
    refuse_odd_adapter,
    refuse_other_tensors,
)
from nlp_transfer.known_checkpoints import MINILM_HUB_ID, PACKAGED_MINILM, default_checkpoint
from nlp_transfer.labels import LabelSet
from nlp_transfer.manifest import ADAPTER_FILES, MANIFEST_FILE, WHOLE_FILES, Manifest, read_manifest
from nlp_transfer.tasks.base import Task
from nlp_transfer.tasks.ner import Ner
from nlp_transfer.tasks.text_classification import TextClassification
from nlp_transfer.training.checkpointing import LOG_FILE
from nlp_transfer.training.evaluate import Evaluation
from nlp_transfer.training.processes import processes

NUM_SAMPLES = 8
MOVED_TOLERANCE = 1e-3
"""PiSSA and OLoRA adapters are rewritten for the base's own weights, which rounds; all others come back exactly."""

AnyTask = TextClassification | Ner


def save_model(model: Model, task: AnyTask, evaluation: Evaluation[Any, Any], folder: Path) -> Path:
    """Write the model, load it again on a clean base, compare outputs, and only then put it in its place.

    The main process writes, the others wait. Raises ArtifactError when what was loaded answers differently, and
    ConfigError when ``folder`` holds something else than a saved model.
    """
    refuse_other_content(folder)
    group = processes()
    if group.is_main_process:
        staged = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        try:
            with naming(folder, sum(tensor.nbytes for tensor in trainable_state(model.network).values())):
                write_model(model, task, evaluation, staged)
            verify(model, task, evaluation, staged)
            put_in_place(staged, folder)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    group.wait_for_everyone()
    return folder


def refuse_other_content(folder: Path) -> None:
    """A saved model is replaced as a whole; nothing else may stand in its place."""
    if folder.exists() and not (folder / MANIFEST_FILE).is_file():
        raise ConfigError(f"{folder} is there already and is no saved model. Name another folder.")


def write_model(model: Model, task: AnyTask, evaluation: Evaluation[Any, Any], folder: Path) -> None:
    try:
        write_network(model, folder)
    except SafetensorError as error:  # which hides what the system said
        raise OSError(errno.ENOSPC, first_line(error)) from error
    if model.moved_by is not None:
        move_back(model.moved_by, folder)
    for path in folder.iterdir():
        path.chmod(0o666 & ~umask())  # safetensors writes files that only their owner can read
    picked = list(islice(zip(evaluation.examples, evaluation.predictions, strict=True), NUM_SAMPLES))
    manifest = Manifest(
        task=task.settings(),
        max_tokens=task.token_limit(model),
        adapter=model.adapter,
        checkpoint=model.origin,
        scores={evaluation.part: evaluation.metrics},
        samples=[task.record(example, prediction) for example, prediction in picked],
        versions={module.__name__: module.__version__ for module in (nlp_transfer, torch, transformers, peft)},
        sha256={path.name: hash_files([path]) for path in sorted(folder.iterdir())},
    )
    (folder / MANIFEST_FILE).write_text(json.dumps(asdict(manifest), indent=2, ensure_ascii=False) + "\n", "utf-8")


def write_network(model: Model, folder: Path) -> None:
    if model.adapter == "none":
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


def verify(model: Model, task: AnyTask, evaluation: Evaluation[Any, Any], folder: Path) -> None:
    """Raises ArtifactError when the model in ``folder`` does not answer as the one in memory does."""
    again, task_again = load_model(folder)
    examples = list(islice(evaluation.examples, NUM_SAMPLES))
    ours, theirs = logits(model, task, examples), logits(again, task_again, examples)
    worst = max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))
    allowed = MOVED_TOLERANCE if model.moved_by is not None else 0.0
    if not worst <= allowed:
        raise ArtifactError(
            f"The saved model answers differently from the one in memory (logits differ by up to {worst:.3g}, allowed "
            f"is {allowed:.3g}); nothing was saved. Please report this with the checkpoint '{model.origin.name}'."
        )


@torch.no_grad()
def logits(model: Model, task: Task[Any, Any], examples: Sequence[Any]) -> list[Tensor]:
    """Of each row by itself, so that padding has no part in it."""
    split: EncodedSplit = task.encode(examples, model)
    device = processes().device  # also of a model just loaded: a GPU and a CPU round differently
    network = model.network.eval()
    network.to(device)
    return [network(**split.batch((i,)).to(device).inputs).logits.cpu() for i in range(len(split))]


def put_in_place(staged: Path, folder: Path) -> None:
    """Replace ``folder`` by ``staged``; a kill in between leaves one of them whole."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    staged.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def load_model(folder: Path, *, checkpoint: str | None = None) -> tuple[Model, AnyTask]:
    """Read back what ``save_model`` wrote, on ``checkpoint`` if given, else on the base that the manifest names.

    ``folder`` may also be the run folder that the model stands in.

    Raises ArtifactError when files are missing or changed, or the base holds other weights or another tokenizer.
    """
    folder = model_folder(folder)
    manifest = read_manifest(folder)
    task = make_task(manifest)
    if manifest.adapter == "none":
        inspect_whole(folder, task)
        model = load_checkpoint(str(folder), task.labels, task.head)
        return replace(model, origin=manifest.checkpoint, adapter="none"), task
    base = load_checkpoint(checkpoint or base_name(manifest.checkpoint), task.labels, task.head)
    check_base(manifest.checkpoint, base.origin, folder)
    network = attach(base, folder)
    return replace(base, network=network.eval(), adapter=manifest.adapter), task


def model_folder(folder: Path) -> Path:
    """Also where the folder of the whole run was named."""
    if not (folder / MANIFEST_FILE).exists() and (folder / "model" / MANIFEST_FILE).is_file():
        folder = folder / "model"
    for run_dir in (folder, folder.parent):
        if (run_dir / LOG_FILE).is_file() and not (folder / MANIFEST_FILE).exists():
            raise ArtifactError(f"{run_dir} is an unfinished run: it has saved no model yet. Its command goes on.")
    return folder


def make_task(manifest: Manifest) -> AnyTask:
    settings, labels = manifest.task, LabelSet(tuple(manifest.task["labels"]))
    if settings["name"] == TextClassification.name:
        return TextClassification(
            labels=labels,
            max_tokens=manifest.max_tokens,
            multi_label=bool(settings.get("multi_label")),
            text_pair=bool(settings.get("text_pair")),
            long_texts=known_policy(settings.get("long_texts", "head"), get_args(LongTexts)),
        )
    if settings["name"] == Ner.name:
        policy = known_policy(settings.get("long_texts", "windows"), get_args(LongTaggedTexts))
        return Ner(labels=labels, max_tokens=manifest.max_tokens, long_texts=policy)
    raise ArtifactError(f"Task '{settings['name']}' is unknown here; known are {TextClassification.name}, {Ner.name}.")


def known_policy(long_texts: Any, known: Sequence[str]) -> Any:
    if long_texts not in known:
        raise ArtifactError(f"long_texts '{long_texts}' is unknown here; known are {quoted(known)}.")
    return long_texts


def base_name(origin: Origin) -> str:
    """The package copy of the default checkpoint and its original on the Hub stand for one another."""
    if origin.name in (PACKAGED_MINILM, MINILM_HUB_ID) and default_checkpoint() == PACKAGED_MINILM:
        return PACKAGED_MINILM
    name = MINILM_HUB_ID if origin.name == PACKAGED_MINILM else origin.name
    return f"{name}@{origin.revision}" if origin.revision else name


def check_base(expected: Origin, found: Origin, folder: Path) -> None:
    for what, field in (("encoder weights", "encoder_sha256"), ("tokenizer", "tokenizer_sha256")):
        wanted, got = getattr(expected, field), getattr(found, field)
        if wanted != got:
            raise ArtifactError(
                f"{folder} was trained on '{expected.name}' with other {what} than '{found.name}' has "
                f"(sha256 {wanted[:12]} against {got[:12]}). Name the checkpoint it was trained on."
            )


def attach(base: Model, folder: Path) -> PreTrainedModel:
    """The adapter and head of ``folder`` on the base: just the tensors that belong there, in their shapes."""
    inspected_config(base, folder)
    weights_path = folder / ADAPTER_FILES[1]
    refuse_not_finite(load_file(weights_path), weights_path)
    try:
        with quiet_transformers():
            network = cast(PreTrainedModel, peft.PeftModel.from_pretrained(base.network, folder))
    except (SafetensorError, ValueError, KeyError, RuntimeError, TypeError) as error:
        raise ArtifactError(f"{folder} does not fit its base: {first_line(error)}") from error
    return network


def inspected_config(base: Model, folder: Path) -> dict[str, Any]:
    """``adapter_config.json``, once it and the names and shapes of the tensors are found to fit the base."""
    config_path, weights_path = (folder / name for name in ADAPTER_FILES)
    config = read_json(config_path)
    refuse_odd_adapter(config, config_path)
    if config["task_type"] != peft_task_type(base.network):
        raise ArtifactError(f"{config_path}: task_type is {config['task_type']}, which the manifest's task is not.")
    refuse_other_tensors(
        read_shapes(weights_path), adapter_shapes(base.network, config, base.head_modules, config_path), weights_path
    )
    return config


def inspect_whole(folder: Path, task: AnyTask) -> None:
    """The same for a model of whole weights, against the network that its config describes, which is not built."""
    config = read_json(folder / WHOLE_FILES[0])
    weights_path = folder / WHOLE_FILES[1]
    found = read_shapes(weights_path)
    if odd := sorted(config.keys() & {"auto_map", "quantization_config"}):
        raise ArtifactError(f"{folder / WHOLE_FILES[0]}: {odd[0]} is not read here, for it may name code.")
    if list(config.get("id2label", {}).values()) != list(task.labels.names):
        raise ArtifactError(f"{folder / WHOLE_FILES[0]} names other labels than {MANIFEST_FILE}.")
    refuse_other_tensors(found, described_shapes(folder, task.labels, task.head, len(found)), weights_path)
    refuse_not_finite(load_file(weights_path), weights_path)


def umask() -> int:
    """What the user takes away from the rights of new files; it can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
