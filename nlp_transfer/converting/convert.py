"""A folder of others becomes a model folder with a manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from nlp_transfer.artifacts import Tried, refuse_existing, save_tried
from nlp_transfer.checkpoint_folders import find
from nlp_transfer.checkpoints import HeadKind, Model, described_shapes, load_model as load_checkpoint
from nlp_transfer.converting.inspected import TWO_LABELS, read_config, refuse_other_sizes, rows_of
from nlp_transfer.converting.labels import Told, known_names, make_task
from nlp_transfer.converting.peft_adapters import from_peft
from nlp_transfer.data.examples import Source, TaggedExample, TextExample
from nlp_transfer.durable import as_path
from nlp_transfer.errors import ArtifactError, ConfigError
from nlp_transfer.inspection import (
    COUNTERS,
    FLOATS,
    read_json,
    read_shapes,
    refuse_links,
    refuse_not_finite,
    refuse_odd_config,
)
from nlp_transfer.manifest import ADAPTER_FILES, MANIFEST_FILE, WHOLE_FILES
from nlp_transfer.output_rows import output_names
from nlp_transfer.reporting.progress import say
from nlp_transfer.saved_models import AnyTask
from nlp_transfer.tasks.ner import Ner

PROBES = ("A text.", "Ada Lovelace lived in London.", "")
"""Answered from memory and from the new folder, which must be the same."""
ARCHITECTURES: dict[str, HeadKind] = {"ForSequenceClassification": "sequence", "ForTokenClassification": "token"}


def convert(
    source: str | Path,
    output: str | Path,
    *,
    checkpoint: str | None = None,
    labels: Sequence[str] | None = None,
    multi_label: bool = False,
    text_pair: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write a model folder of ours to ``output`` from a folder, or a repository on the Hub, that others made.

    ``checkpoint`` is the base of an adapter, if not the one that it names; ``labels`` their names in the order of ids,
    if not those in its ``config.json``; ``multi_label`` and ``text_pair`` what it was trained to do.

    Raises ArtifactError where a part of the head is missing, and for tags that are not O, B-X and I-X; ConfigError for
    names that do not fit.
    """
    output = as_path(output)
    refuse_existing(output, overwrite=overwrite)
    folder, name, revision = find(str(source))
    if (folder / MANIFEST_FILE).exists():
        raise ConfigError(f"{folder} has a {MANIFEST_FILE}: it is one of ours already. nt.load reads it.")
    refuse_links(folder)
    told = Told(None if labels is None else tuple(labels), multi_label, text_pair)
    if (folder / ADAPTER_FILES[0]).exists():
        model, task = from_peft(folder, checkpoint, told)
    elif checkpoint is not None:
        raise ConfigError(f"{folder} holds whole weights, which need no base. Leave the checkpoint out.")
    else:
        model, task = from_transformers(folder, f"{name}@{revision}" if revision else name, told)
    say(f"Taken to be usual: {task.token_limit(model)} tokens at most; of longer texts, {task.long_texts} is read.")
    return save_tried(model, task, Tried({}, [], [probe(task, text) for text in PROBES]), output)


def from_transformers(folder: Path, spelled: str, told: Told) -> tuple[Model, AnyTask]:
    config_path, weights_path = (folder / name for name in WHOLE_FILES)
    if not config_path.is_file() or not weights_path.is_file():
        raise ArtifactError(f"{folder} lacks {WHOLE_FILES[0]} or {WHOLE_FILES[1]}. A whole model has both in one file.")
    raw, found = read_json(config_path), read_shapes(weights_path, kinds_read=FLOATS + COUNTERS)
    refuse_odd_config(raw, config_path)
    head = head_of(raw, config_path)
    described_shapes(folder, TWO_LABELS, head, found)  # bounds what is made of the config from here on
    config = read_config(folder)
    outputs = output_names(config, head)
    names = known_names(raw, rows_of(found, outputs, config, head, weights_path), told, config_path)
    refuse_other_sizes(found, described_shapes(folder, names, head, found), weights_path)
    refuse_not_finite(load_file(weights_path), weights_path)
    task, order = make_task(head, names, raw.get("problem_type"), told, config_path)
    model = load_checkpoint(spelled, task.labels, head)
    if type(model.network).__name__ != architecture_of(raw) or not model.brings_head:
        raise odd_head(folder, model, architecture_of(raw))
    state = model.network.state_dict()
    for name in outputs:
        state[name].copy_(state[name][order].clone())
    return replace(model, adapter="none"), task


def architecture_of(config: Mapping[str, Any]) -> str:
    stated = config.get("architectures")
    return stated[0] if isinstance(stated, list) and stated and isinstance(stated[0], str) else "none"


def head_of(config: Mapping[str, Any], path: Path) -> HeadKind:
    name = architecture_of(config)
    for ending, head in ARCHITECTURES.items():
        if name.endswith(ending):
            return head
    raise ArtifactError(f"{path}: architecture '{name}' is no {' and no '.join(ARCHITECTURES)}.")


def odd_head(folder: Path, model: Model, architecture: str) -> ArtifactError:
    modules = tuple(f"{module}." for module in model.head_modules)
    missing = sorted(name for name in model.new_tensors if name.startswith(modules))
    if missing:
        return ArtifactError(f"{folder} lacks {missing[0]} of the head, which would be random.")
    return ArtifactError(
        f"{folder} is a {architecture}, which is not transformers' own {type(model.network).__name__}."
    )


def probe(task: AnyTask, text: str) -> Any:
    source = Source("probe", 1)
    if isinstance(task, Ner):
        return TaggedExample(tuple(text.split()), (), source)
    return TextExample(text, (), source, text if task.text_pair else None)
