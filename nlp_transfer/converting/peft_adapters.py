"""Plain PEFT adapters: the same layers adapted, and the head whole."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nlp_transfer.adapters.lora import NO_TARGETS
from nlp_transfer.checkpoints import HeadKind, Model, load_model as load_checkpoint
from nlp_transfer.converting.inspected import inspected_base, refuse_other_tokenizer, rows_of
from nlp_transfer.converting.labels import Told, known_names, make_task
from nlp_transfer.errors import ArtifactError
from nlp_transfer.inspection import (
    DOWN,
    PREFIX,
    UP,
    Shapes,
    adapter_shapes,
    head_shapes,
    is_named,
    lora_scale,
    read_json,
    read_shapes,
    refuse_not_finite,
    refuse_odd_adapter,
    refuse_other_tensors,
)
from nlp_transfer.manifest import ADAPTER_FILES, WHOLE_FILES
from nlp_transfer.output_rows import output_names
from nlp_transfer.reporting.progress import say
from nlp_transfer.saved_models import AnyTask, attach

MAX_NAME = 1_000
"""Characters of a base's name."""
TASK_TYPES: dict[str, HeadKind] = {"SEQ_CLS": "sequence", "TOKEN_CLS": "token"}


def from_peft(folder: Path, checkpoint: str | None, told: Told) -> tuple[Model, AnyTask]:
    config_path, weights_path = (folder / name for name in ADAPTER_FILES)
    raw = read_json(config_path)
    if not weights_path.is_file():
        raise ArtifactError(f"{folder} lacks {weights_path.name}; weights are read from safetensors alone.")
    raw["modules_to_save"] = raw.get("modules_to_save") or []
    refuse_odd_adapter(raw, config_path)
    head, found = TASK_TYPES[raw["task_type"]], plain_shapes(weights_path)
    spelled = checkpoint or base_of(raw, config_path)
    base_config = inspected_base(spelled, head)
    outputs = output_names(base_config, head)
    number = rows_of(found, outputs, base_config, head, weights_path)
    own_path = folder / WHOLE_FILES[0]
    own = read_json(own_path) if own_path.is_file() else {}
    names = known_names(own, number, told, own_path)
    task, order = make_task(head, names, own.get("problem_type"), told, config_path)
    base = load_checkpoint(spelled, task.labels, head)
    refuse_other_tokenizer(folder, base)
    refuse_other_layers(found, base, raw, weights_path)
    say(f"Not recorded: the weights of the base that it was trained on. Taken to be those of '{base.origin.name}'.")
    tensors = {plain_name(name): tensor for name, tensor in load_file(weights_path).items()}
    refuse_not_finite(tensors, weights_path)
    for name in outputs:
        tensors[PREFIX + name] = tensors[PREFIX + name][order].contiguous()
    return attached(base, raw, with_whole_head(tensors, raw, base, weights_path), weights_path), task


def base_of(raw: Mapping[str, Any], path: Path) -> str:
    name, revision = raw.get("base_model_name_or_path"), raw.get("revision")
    if not isinstance(name, str) or not 0 < len(name) < MAX_NAME:
        raise ArtifactError(f"{path} does not name its base. Pass --checkpoint (checkpoint=...).")
    return f"{name}@{revision}" if isinstance(revision, str) and not Path(name).is_dir() else name


def plain_shapes(path: Path) -> Shapes:
    """By the names that PEFT writes today."""
    found = read_shapes(path)
    plain = {plain_name(name): shape for name, shape in found.items()}
    if len(plain) < len(found):
        raise ArtifactError(f"{path} holds a part of the head twice, under an older name and a newer one.")
    return plain


def plain_name(name: str) -> str:
    return name.replace(".modules_to_save.default.", ".").replace(".modules_to_save.", ".")


def refuse_other_layers(found: Shapes, base: Model, raw: Mapping[str, Any], path: Path) -> None:
    """Raises ArtifactError unless the layers that PEFT would adapt are those that have low-rank weights."""
    targets = [] if raw["target_modules"] == NO_TARGETS else raw["target_modules"]
    adapted = {name.removeprefix(PREFIX).partition(".lora_")[0] for name in found if ".lora_" in name}
    wanted = set()
    for name, module in base.network.named_modules():
        is_target = isinstance(module, nn.Linear) and any(is_named(name, target) for target in targets)
        if is_target and not is_saved(name, raw["modules_to_save"]):
            wanted.add(name)
    for name in sorted(wanted ^ adapted):
        what = "lacks the weights of" if name in wanted else "holds weights for"
        raise ArtifactError(
            f"{path} {what} layer '{name}', which its config {'names' if name in wanted else 'does not name'}."
        )
    for name in wanted:
        if not {f"{PREFIX}{name}{end}" for end in (DOWN, UP)} <= found.keys():
            raise ArtifactError(f"{path} lacks the weights of layer '{name}', which its config names.")


def is_saved(name: str, saved: Sequence[str]) -> bool:
    """Whether a module, or one that it stands in, is saved whole."""
    parts = name.split(".")
    modules = [".".join(parts[:i]) for i in range(1, len(parts) + 1)]
    return any(is_named(module, one) for module in modules for one in saved)


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
    return lora_scale(raw) * (up.float() @ down.float())


def attached(base: Model, raw: Mapping[str, Any], tensors: dict[str, Tensor], path: Path) -> Model:
    """Written down as ours would be, and read with the same inspection."""
    targets = [name.removeprefix(PREFIX).removesuffix(DOWN) for name in tensors if name.endswith(DOWN)]
    config = {**raw, "modules_to_save": sorted(base.head_modules), "target_modules": targets or NO_TARGETS}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    refuse_other_tensors(shapes, adapter_shapes(base.network, config, base.head_modules, path), path)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / ADAPTER_FILES[0]).write_text(json.dumps(config), "utf-8")
        save_file(tensors, folder / ADAPTER_FILES[1], metadata={"format": "pt"})
        return replace(base, network=attach(base, folder).eval(), adapter="lora" if targets else "head")
