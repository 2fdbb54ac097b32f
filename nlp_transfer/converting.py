"""Models of others made ours: a plain PEFT adapter, or a classification or token model of transformers.

What such a folder does not hold, and we need, is asked for, or taken to be what is usual, and said.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedConfig

from nlp_transfer.adapters.lora import NO_TARGETS
from nlp_transfer.artifacts import Tried, refuse_existing, save_tried
from nlp_transfer.checkpoint_folders import find
from nlp_transfer.checkpoints import HeadKind, Model, described_shapes, load_model as load_checkpoint
from nlp_transfer.data.examples import Source, TaggedExample, TextExample
from nlp_transfer.errors import ArtifactError, ConfigError, counted, first_line, quoted
from nlp_transfer.inspection import (
    DOWN,
    PREFIX,
    UP,
    Shapes,
    head_shapes,
    read_json,
    read_shapes,
    refuse_code,
    refuse_links,
    refuse_not_finite,
    refuse_odd_adapter,
)
from nlp_transfer.labels import LabelSet, split_tag
from nlp_transfer.manifest import ADAPTER_FILES, MANIFEST_FILE, WHOLE_FILES
from nlp_transfer.output_rows import output_names
from nlp_transfer.reporting.progress import say
from nlp_transfer.saved_models import AnyTask, attach
from nlp_transfer.tasks.config import THRESHOLD
from nlp_transfer.tasks.ner import Ner
from nlp_transfer.tasks.text_classification import TextClassification

PROBES = ("A text.", "Ada Lovelace lived in London.", "")
"""Answered from memory and from the new folder, which must be the same."""
ARCHITECTURES: dict[str, HeadKind] = {"ForSequenceClassification": "sequence", "ForTokenClassification": "token"}
TASK_TYPES: dict[str, HeadKind] = {"SEQ_CLS": "sequence", "TOKEN_CLS": "token"}


@dataclass(frozen=True)
class Told:
    """What the user says of the model."""

    labels: tuple[str, ...] | None
    multi_label: bool
    text_pair: bool


def convert(
    source: str | Path,
    output: Path,
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
    refuse_existing(output, overwrite=overwrite)
    folder, _, _ = find(str(source))
    if (folder / MANIFEST_FILE).exists():
        raise ConfigError(f"{folder} has a {MANIFEST_FILE}: it is one of ours already. nt.load reads it.")
    refuse_links(folder)
    told = Told(None if labels is None else tuple(labels), multi_label, text_pair)
    if (folder / ADAPTER_FILES[0]).exists():
        model, task = from_peft(folder, checkpoint, told)
    elif checkpoint is not None:
        raise ConfigError(f"{folder} holds whole weights, which need no base. Leave the checkpoint out.")
    else:
        model, task = from_transformers(folder, told)
    say(f"Taken to be usual: {task.token_limit(model)} tokens at most; of longer texts, {task.long_texts} is read.")
    return save_tried(model, task, Tried({}, [], [probe(task, text) for text in PROBES]), output)


def from_transformers(folder: Path, told: Told) -> tuple[Model, AnyTask]:
    config_path, weights_path = (folder / name for name in WHOLE_FILES)
    if not config_path.is_file() or not weights_path.is_file():
        raise ArtifactError(f"{folder} lacks {WHOLE_FILES[0]} or {WHOLE_FILES[1]}. A whole model has both in one file.")
    raw, found = read_json(config_path), read_shapes(weights_path)
    refuse_code(raw, config_path)
    head = head_of(raw, config_path)
    names = known_names(read_config(folder), None, told)
    refuse_other_sizes(found, described_shapes(folder, names, head, found), weights_path)
    refuse_not_finite(load_file(weights_path), weights_path)
    task, order = make_task(head, names, raw.get("problem_type"), told, config_path)
    model = load_checkpoint(str(folder), task.labels, head)
    if not model.brings_head:
        raise missing_head(folder, model)
    state = model.network.state_dict()
    for name in output_names(model.network.config, head):
        state[name].copy_(state[name][order].clone())
    return replace(model, adapter="none"), task


def from_peft(folder: Path, checkpoint: str | None, told: Told) -> tuple[Model, AnyTask]:
    config_path, weights_path = (folder / name for name in ADAPTER_FILES)
    raw = read_json(config_path)
    if not weights_path.is_file():
        raise ArtifactError(f"{folder} lacks {weights_path.name}; weights are read from safetensors alone.")
    raw["modules_to_save"] = raw.get("modules_to_save") or []
    refuse_odd_adapter(raw, config_path)
    head = TASK_TYPES[raw["task_type"]]
    spelled = checkpoint or base_of(raw, config_path)
    base_config = read_config(find(spelled)[0])
    outputs = output_names(base_config, head)
    found = read_shapes(weights_path)
    tensors = {plain_name(name): tensor for name, tensor in load_file(weights_path).items()}
    refuse_not_finite(tensors, weights_path)
    if len(tensors) < len(found) or not tensors.keys() >= {PREFIX + name for name in outputs}:
        raise ArtifactError(f"{weights_path} lacks the last layer of the head, which would be random: {outputs[0]}.")
    number = len(tensors[PREFIX + outputs[0]])
    own = read_config(folder) if (folder / WHOLE_FILES[0]).is_file() else None
    names = known_names(own, number, told)
    task, order = make_task(head, names, None, told, config_path)
    base = load_checkpoint(spelled, task.labels, head)
    say(f"Not recorded: the weights of the base that it was trained on. Taken to be those of '{base.origin.name}'.")
    for name in outputs:
        tensors[PREFIX + name] = tensors[PREFIX + name][order].contiguous()
    refuse_missing_layers(tensors, base, raw, weights_path)
    return attached(base, raw, with_whole_head(tensors, raw, base, weights_path)), task


def base_of(raw: Mapping[str, Any], path: Path) -> str:
    name, revision = raw.get("base_model_name_or_path"), raw.get("revision")
    if not isinstance(name, str) or not name:
        raise ArtifactError(f"{path} does not name its base. Pass --checkpoint (checkpoint=...).")
    return f"{name}@{revision}" if isinstance(revision, str) and not Path(name).is_dir() else name


def plain_name(name: str) -> str:
    """As PEFT writes it today."""
    return name.replace(".modules_to_save.default.", ".").replace(".modules_to_save.", ".")


def refuse_missing_layers(tensors: Mapping[str, Tensor], base: Model, raw: Mapping[str, Any], path: Path) -> None:
    """Raises ArtifactError unless each layer that PEFT would adapt has its low-rank weights."""
    targets, saved = raw["target_modules"], tuple(f"{name}." for name in raw["modules_to_save"])
    for name, module in base.network.named_modules():
        is_target = targets != NO_TARGETS and any(name == target or name.endswith(f".{target}") for target in targets)
        needed = {PREFIX + name + end for end in (DOWN, UP)}
        is_adapted = is_target and isinstance(module, nn.Linear) and not f"{name}.".startswith(saved)
        if is_adapted and not needed <= tensors.keys():
            raise ArtifactError(f"{path} lacks the weights of layer '{name}', which its config names.")


def with_whole_head(
    tensors: Mapping[str, Tensor], raw: Mapping[str, Any], base: Model, path: Path
) -> dict[str, Tensor]:
    """What the adapter has of the head, and what its base has: a pooler, for example, that was not trained, or that was
    with low-rank weights, which are added here: our heads are saved whole.
    """
    state, whole = base.network.state_dict(), dict(tensors)
    for full_name, _ in head_shapes(base.network, base.head_modules):
        name = full_name.removeprefix(PREFIX)
        if full_name in tensors:
            continue
        if name in base.new_tensors:
            raise ArtifactError(f"{path} lacks {name} of the head, and so does its base: it would be random.")
        whole[full_name] = state[name].clone()
        layer = full_name.removesuffix(".weight")
        factors = [whole.pop(layer + end) for end in (UP, DOWN) if layer + end in whole]
        if factors:
            whole[full_name] += low_rank_change(factors, whole[full_name], raw, f"{path}: layer '{name}'")
    return whole


def low_rank_change(factors: Sequence[Tensor], weight: Tensor, raw: Mapping[str, Any], place: str) -> Tensor:
    """``s·B·A``, as LoRA adds it to ``weight``."""
    if raw.get("use_dora"):
        raise ArtifactError(f"{place} is a part of the head under DoRA, which is not read.")
    up, down = factors[0], factors[-1]
    if (len(up), *down.shape[1:]) != tuple(weight.shape) or up.shape[1:] != down.shape[:1]:
        raise ArtifactError(f"{place} has low-rank weights that do not fit its base.")
    scale = float(raw["lora_alpha"] / (raw["r"] ** 0.5 if raw.get("use_rslora") else raw["r"]))
    return scale * (up.float() @ down.float())


def attached(base: Model, raw: Mapping[str, Any], tensors: dict[str, Tensor]) -> Model:
    """Written down as ours would be, and read with the same inspection."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        targets = [name.removeprefix(PREFIX).removesuffix(DOWN) for name in tensors if name.endswith(DOWN)]
        config = {**raw, "modules_to_save": sorted(base.head_modules), "target_modules": targets or NO_TARGETS}
        (folder / ADAPTER_FILES[0]).write_text(json.dumps(config), "utf-8")
        save_file(tensors, folder / ADAPTER_FILES[1], metadata={"format": "pt"})
        return replace(base, network=attach(base, folder).eval(), adapter="lora" if targets else "head")


def read_config(folder: Path) -> PreTrainedConfig:
    try:
        return cast(PreTrainedConfig, AutoConfig.from_pretrained(folder, trust_remote_code=False))
    except Exception as error:  # a damaged config.json ends in a dozen types
        raise ArtifactError(f"{folder / WHOLE_FILES[0]} cannot be read: {first_line(error)}") from error


def head_of(raw: Mapping[str, Any], path: Path) -> HeadKind:
    stated = raw.get("architectures")
    names = [name for name in stated if isinstance(name, str)] if isinstance(stated, list) else []
    for ending, head in ARCHITECTURES.items():
        if names and names[0].endswith(ending):
            return head
    raise ArtifactError(f"{path}: architecture {quoted(names) or 'none'} is no {' and no '.join(ARCHITECTURES)}.")


def known_names(config: PreTrainedConfig | None, number: int | None, told: Told) -> LabelSet:
    """The names of the labels in the order of the head's rows, which are ``number`` if they are counted already.

    Raises ConfigError where the user names more or fewer.
    """
    stated = tuple(str(name) for _, name in sorted((config.id2label or {}).items())) if config is not None else ()
    number = number or len(stated)
    if told.labels is not None and len(set(told.labels)) != number:
        raise ConfigError(f"labels must be {number} different names, got {len(told.labels)}: {quoted(told.labels)}.")
    names = told.labels or (stated if len(stated) == number else ())
    if not names or names == tuple(f"LABEL_{i}" for i in range(number)):
        say(f"Not recorded: the names of the {counted(number, 'label')}. They are LABEL_0 and so on; see --labels.")
        names = tuple(f"LABEL_{i}" for i in range(number))
    if len(set(names)) < len(names):
        raise ArtifactError(f"two labels have the same name: {quoted(names)}. Pass --labels.")
    return LabelSet(names)


def make_task(head: HeadKind, names: LabelSet, problem_type: Any, told: Told, path: Path) -> tuple[AnyTask, list[int]]:
    """The task, and which row of the head belongs to each of its labels."""
    if head == "token":
        if told.multi_label or told.text_pair:
            raise ConfigError("multi_label and text_pair belong to text classification, and this model tags words.")
        labels = LabelSet.for_tags(split_tag(name)[1] for name in names.names if name != "O")
        if set(labels.names) != set(names.names):
            raise ArtifactError(
                f"{path}: tags must be O, and B-X and I-X of each entity type, got {quoted(names.names)}. See --labels."
            )
        say("Taken to be usual: tags are IOB2, and the tag of a word stands at its first token.")
        return Ner(labels=labels), [names.id(name) for name in labels.names]
    if problem_type == "regression" or len(names) < (1 if told.multi_label else 2):
        raise ArtifactError(
            f"{path}: a model with {counted(len(names), 'output')} that is a regression cannot be read."
        )
    multi_label = told.multi_label or problem_type == "multi_label_classification"
    thresholds = (THRESHOLD,) * len(names) if multi_label else None
    if multi_label:
        say(f"Not recorded: thresholds. Taken to be usual: {THRESHOLD} for each label.")
    task = TextClassification(labels=names, multi_label=multi_label, text_pair=told.text_pair, thresholds=thresholds)
    return task, list(range(len(names)))


def refuse_other_sizes(found: Shapes, described: Shapes, path: Path) -> None:
    """Before room is made for what a config describes: its tensors must be those of the file as far as names agree."""
    common = found.keys() & described.keys()
    odd = sorted(name for name in common if found[name] != described[name])
    if odd or not common:
        what = f"{odd[0]} has shape {list(found[odd[0]])}" if odd else "no tensor has a name that belongs there"
        raise ArtifactError(f"{path} is not what its {WHOLE_FILES[0]} describes: {what}.")


def missing_head(folder: Path, model: Model) -> ArtifactError:
    modules = tuple(f"{module}." for module in model.head_modules)
    name = min(name for name in model.new_tensors if name.startswith(modules))
    return ArtifactError(f"{folder} lacks {name} of the head, which would be random.")


def probe(task: AnyTask, text: str) -> Any:
    source = Source("probe", 1)
    if isinstance(task, Ner):
        return TaggedExample(tuple(text.split()), (), source)
    return TextExample(text, (), source, text if task.text_pair else None)
