"""Read a saved model back: every file checked, on the base that it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

import peft
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from nlp_transfer.adapters.lora import peft_task_type
from nlp_transfer.adapters.one_product import use_one_product
from nlp_transfer.checkpoints import Model, Origin, described_shapes, load_model as load_checkpoint, quiet_transformers
from nlp_transfer.data.encoded import EncodedSplit
from nlp_transfer.data.long_texts import LongTaggedTexts, LongTexts
from nlp_transfer.durable import as_path
from nlp_transfer.errors import ArtifactError, ConfigError, first_line, quoted
from nlp_transfer.inspection import (
    adapter_shapes,
    read_json,
    read_shapes,
    refuse_not_finite,
    refuse_odd_adapter,
    refuse_odd_config,
    refuse_other_labels,
    refuse_other_tensors,
)
from nlp_transfer.known_checkpoints import MINILM_HUB_ID, PACKAGED_MINILM, default_checkpoint
from nlp_transfer.labels import LabelSet, split_tag
from nlp_transfer.manifest import ADAPTER_FILES, MANIFEST_FILE, WHOLE_FILES, Manifest, read_manifest
from nlp_transfer.tasks.base import Task
from nlp_transfer.tasks.ner import Ner
from nlp_transfer.tasks.text_classification import TextClassification
from nlp_transfer.training.checkpointing import LOG_FILE
from nlp_transfer.training.processes import processes

AnyTask = TextClassification | Ner


def load_model(folder: str | Path, *, checkpoint: str | Path | None = None) -> tuple[Model, AnyTask]:
    """Read back what ``save_model`` wrote, on ``checkpoint`` if given, else on the base that the manifest names.

    ``folder`` may also be the run folder that the model stands in.

    Raises ArtifactError when files are missing or changed, or the base holds other weights or another tokenizer, and
    ConfigError when it reads shorter texts than the model was trained on.
    """
    folder = model_folder(as_path(folder))
    manifest = read_manifest(folder)
    task = make_task(manifest)
    if manifest.adapter == "onnx":
        raise ArtifactError(
            f"{folder} holds an ONNX model, which only nt.load and nlp-transfer predict and evaluate read."
        )
    if manifest.adapter == "none":
        if checkpoint is not None:
            raise ConfigError(f"{folder} holds whole weights, which need no base. Leave the checkpoint out.")
        inspect_whole(folder, task)
        model = load_checkpoint(str(folder), task.labels, task.head)
        task.token_limit(model)
        return replace(model, origin=manifest.checkpoint, adapter="none"), task
    refuse_other_labels(read_shapes(folder / ADAPTER_FILES[1]), len(task.labels), folder)
    base = load_checkpoint(checkpoint or base_name(manifest.checkpoint), task.labels, task.head)
    check_base(manifest.checkpoint, base.origin, folder)
    task.token_limit(base)
    network = attach(base, folder)
    return replace(base, network=network.eval(), adapter=manifest.adapter), task


def model_folder(folder: Path) -> Path:
    """Also where the folder of the whole run was named. Raises ArtifactError for what is no folder."""
    if not (folder / MANIFEST_FILE).exists() and (folder / "model" / MANIFEST_FILE).is_file():
        folder = folder / "model"
    for run_dir in (folder, folder.parent):
        if (run_dir / LOG_FILE).is_file() and not (folder / MANIFEST_FILE).exists():
            raise ArtifactError(
                f"{run_dir} is an unfinished run: it has saved no model yet. The same command goes on from there."
            )
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise ArtifactError(f"{folder} {what}. Name the 'model' folder of a run.")
    return folder


def make_task(manifest: Manifest) -> AnyTask:
    settings, labels = manifest.task, LabelSet(tuple(manifest.task["labels"]))
    if settings["name"] == TextClassification.name:
        return TextClassification(
            labels=labels,
            max_tokens=manifest.max_tokens,
            multi_label=bool(settings.get("multi_label")),
            text_pair=bool(settings.get("text_pair")),
            thresholds=known_thresholds(settings.get("thresholds"), len(labels)),
            long_texts=known_policy(settings.get("long_texts", "head"), get_args(LongTexts)),
        )
    if settings["name"] == Ner.name:
        if labels != LabelSet.for_tags(
            split_tag(name)[1] for name in labels.names[1:]
        ):  # decoding takes it for granted
            raise ArtifactError(f"Tags must be O, then B-X and I-X of each entity type, got {quoted(labels.names)}.")
        policy = known_policy(settings.get("long_texts", "windows"), get_args(LongTaggedTexts))
        return Ner(labels=labels, max_tokens=manifest.max_tokens, long_texts=policy)
    raise ArtifactError(f"Task '{settings['name']}' is unknown here; known are {TextClassification.name}, {Ner.name}.")


def known_thresholds(stated: Any, number: int) -> tuple[float, ...] | None:
    if stated is None:
        return None
    if (
        not isinstance(stated, list)
        or len(stated) != number
        or not all(isinstance(x, float) and 0 < x < 1 for x in stated)
    ):
        raise ArtifactError(f"thresholds must be {number} numbers between 0 and 1, got {stated!r:.60}.")
    return tuple(stated)


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
        with quiet_transformers(), torch.random.fork_rng(devices=[]):  # PEFT draws weights before it reads them
            network = cast(PreTrainedModel, peft.PeftModel.from_pretrained(base.network, folder))
    except (SafetensorError, ValueError, KeyError, RuntimeError, TypeError) as error:
        raise ArtifactError(f"{folder} does not fit its base: {first_line(error)}") from error
    use_one_product(network)
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
    refuse_odd_config(config, folder / WHOLE_FILES[0])
    if (folder / ADAPTER_FILES[0]).exists():  # transformers would put it on top
        raise ArtifactError(f"{folder} holds whole weights and an adapter. Remove {ADAPTER_FILES[0]}.")
    names = config.get("id2label")
    if not isinstance(names, dict) or list(names.values()) != list(task.labels.names):
        raise ArtifactError(f"{folder / WHOLE_FILES[0]} names other labels than {MANIFEST_FILE}.")
    refuse_other_labels(found, len(task.labels), folder)
    refuse_other_tensors(found, described_shapes(folder, task.labels, task.head, found), weights_path)
    refuse_not_finite(load_file(weights_path), weights_path)


@torch.no_grad()
def logits(model: Model, task: Task[Any, Any], examples: Sequence[Any]) -> list[Tensor]:
    """Of each row by itself, so that padding has no part in it."""
    split: EncodedSplit = task.encode(examples, model)
    device = processes().device  # also of a model just loaded: a GPU and a CPU round differently
    network = model.network.eval()
    network.to(device)
    return [network(**split.batch((i,)).to(device).inputs).logits.cpu() for i in range(len(split))]
