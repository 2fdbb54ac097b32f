"""What a folder of weights may hold. Looked at before anything of it is loaded: it may come from anybody.

No number that is stated is believed: tensors are named and sized by the header of their file, which safetensors holds
against the size of that file, and they must be those of the base. Nothing outside of the folder is opened.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from nlp_transfer.adapters.lora import NO_TARGETS
from nlp_transfer.errors import ArtifactError, counted, first_line

MAX_JSON = 16 * 2**20
"""Bytes. A manifest with long samples, or a tokenizer of a hundred languages, holds less."""
MAX_NAMES = 10_000
"""Of modules in a list."""
MAX_RANK = 2**16
MAX_SCALE = 1e4
"""Of an adapter's output: alpha / rank. Beyond it, trained adapters do not lie, and fp16 overflows."""
RUNNABLE = (".bin", ".ckpt", ".dll", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth", ".py", ".pyc", ".so")
"""Files that may run code when they are read. Nothing here reads them; who shares a folder needs none of them."""
NAMES_CODE = {"auto_map", "quantization_config", "attn_implementation", "_attn_implementation"}
"""Fields of ``config.json``; attention may be a kernel on the Hub."""
SMALL = 10**7
"""Weights that a checkpoint may lack whatever its size: a new head."""
MODULE_NAME = re.compile(r"[A-Za-z0-9_.]{1,200}")
DESCRIPTIVE = {"auto_mapping", "base_model_name_or_path", "inference_mode", "peft_version", "revision", "megatron_core"}
"""Fields of ``adapter_config.json`` that loading takes no notice of."""
COMPUTED = {
    "peft_type": ("LORA",),
    "task_type": ("SEQ_CLS", "TOKEN_CLS"),
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian", "orthogonal"),
    "use_rslora": (True, False),
    "use_dora": (True, False),
    "qalora_group_size": (16,),
}
ADDED_BY_PEFT = ("classifier", "score")
"""To the modules that are saved, whether the network has them or not."""
SIZED = {"r", "lora_alpha", "lora_dropout", "target_modules", "modules_to_save"}
PREFIX = "base_model.model."
"""Of every name in an adapter's file: PEFT's own wrapping."""
DOWN, UP = ".lora_A.weight", ".lora_B.weight"
FLOATS = ("F32", "F16", "BF16")
FEW = reprlib.Repr()
"""Of a list of millions, the first ones: writing them all takes half a second."""
FEW.maxlist = FEW.maxtuple = FEW.maxdict = FEW.maxstring = FEW.maxother = FEW.maxlong = 200
COUNTERS = ("I64", "I32")
"""Of positions, as older checkpoints hold them beside their weights."""
Shapes = dict[str, tuple[int, ...]]


def refuse_odd_files(folder: Path) -> None:
    """Raises ArtifactError for what is no plain file of this folder, and for files that may run code.

    In the Hub's cache a repository may hold more than the model, such as the ``handler.py`` of a service; none of that
    is read.
    """
    refuse_links(folder)
    if stores_of_cache(folder.resolve()):
        return
    for path in folder.rglob("*"):
        if path.suffix.lower() in RUNNABLE:
            raise ArtifactError(f"{path} may hold code, and only safetensors and JSON are read. Remove it.")


def refuse_links(folder: Path) -> None:
    """Raises ArtifactError for what is no plain file of this folder.

    The Hub's cache holds links to its own stores: ``blobs`` beside ``snapshots``, and beside all repositories.
    """
    own = folder.resolve()
    stores = {own, *stores_of_cache(own)}
    for path in folder.rglob("*"):
        try:
            target = path.resolve()
            mode = target.stat().st_mode if target.exists() else 0
        except (OSError, RuntimeError):  # a link to itself, which has two names in Python
            target, mode = path, 0
        if path.is_symlink() and not stores & {*target.parents}:
            raise ArtifactError(f"{path} leads out of its folder. Get the folder again from where it was made.")
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise ArtifactError(f"{path} is no plain file. Remove it.")


def stores_of_cache(own: Path) -> list[Path]:
    """Of a snapshot in the Hub's cache, or a folder in one."""
    for snapshot in (own, own.parent):
        repository = snapshot.parent.parent
        if snapshot.parent.name == "snapshots" and repository.name.startswith("models--"):
            return [repository / "blobs", repository.parent / "blobs"]
    return []


def refuse_code(config: Mapping[str, Any], path: Path) -> None:
    """Raises ArtifactError for fields of ``config.json`` that may lead to code."""
    if odd := sorted(config.keys() & NAMES_CODE):
        raise ArtifactError(f"{path}: {odd[0]} is not read here, for it may name code.")


def refuse_odd_config(config: Mapping[str, Any], path: Path) -> None:
    """Raises ArtifactError for fields of ``config.json`` that may lead to code, and for room without end for labels."""
    refuse_code(config, path)
    number = config.get("num_labels", config.get("_num_labels"))
    if isinstance(number, int) and number > MAX_NAMES:  # transformers makes a name for each at once
        raise ArtifactError(f"{path}: num_labels is {shortened(number)}; at most {MAX_NAMES:,} are read.")


def read_json(path: Path) -> dict[str, Any]:
    """Raises ArtifactError for anything but an object of reasonable size."""
    size = path.stat().st_size
    if size > MAX_JSON:
        raise ArtifactError(f"{path} has {size:,} bytes; at most {MAX_JSON:,} are read.")
    try:
        raw = json.loads(path.read_text("utf-8"), parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:  # RecursionError: brackets within brackets
        raise ArtifactError(f"{path} is damaged ({first_line(error)}). Get it again from where it was made.") from error
    if not isinstance(raw, dict):
        raise ArtifactError(f"{path} is damaged (it is no JSON object). Get it again from where it was made.")
    return raw


def refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def read_shapes(path: Path, *, kinds_read: Sequence[str] = FLOATS) -> Shapes:
    """Of every tensor in a safetensors file, from its header. Raises ArtifactError for numbers of other kinds."""
    try:
        with safe_open(path, "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            kinds = {name: one.get_dtype() for name, one in slices.items()}
            shapes = {name: tuple(one.get_shape()) for name, one in slices.items()}
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path} is no whole safetensors file: {first_line(error)}") from error
    if odd := [name for name, kind in kinds.items() if kind not in kinds_read]:
        raise ArtifactError(f"{path}: tensor '{odd[0]}' is of type {kinds[odd[0]]}; read are {', '.join(kinds_read)}.")
    return shapes


def refuse_odd_adapter(config: Mapping[str, Any], path: Path) -> None:
    """Every setting of PEFT's that decides what is computed must be one that is known and bounded here.

    Its patterns are regular expressions, which can take hours: names are compared as names.
    """
    for field, value in config.items():
        known = COMPUTED.get(field)
        if known is not None and value not in known:
            raise ArtifactError(f"{path}: {field} is {shortened(value)}; read are {', '.join(map(str, known))}.")
        if known is None and field not in SIZED | DESCRIPTIVE and not is_unset(value):
            raise ArtifactError(f"{path}: {field} is {shortened(value)}, a setting that is not read here.")
    if missing := sorted({"peft_type", "task_type", *SIZED} - config.keys()):
        raise ArtifactError(f"{path}: {missing[0]} is missing.")
    for field in ("target_modules", "modules_to_save"):
        if not are_names(config[field]) and (field, config[field]) != ("target_modules", NO_TARGETS):
            most = f"at most {MAX_NAMES:,} names of modules"
            raise ArtifactError(f"{path}: {field} must be a list of {most}, got {shortened(config[field])}.")
    refuse_odd_scale(config, path)


def are_names(value: Any) -> bool:
    is_list = isinstance(value, list) and len(value) <= MAX_NAMES
    return is_list and all(isinstance(name, str) and MODULE_NAME.fullmatch(name) for name in value)


def is_unset(value: Any) -> bool:
    """0 is a value: of ``layers_to_transform`` it names a layer."""
    return value is None or value is False or (isinstance(value, list | dict | str) and not value)


def refuse_odd_scale(config: Mapping[str, Any], path: Path) -> None:
    rank, alpha, dropout = config.get("r"), config.get("lora_alpha"), config.get("lora_dropout", 0)
    if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank <= MAX_RANK:
        raise ArtifactError(f"{path}: r must be a whole number from 1 to {MAX_RANK:,}, got {shortened(rank)}.")
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not 0 < alpha <= MAX_SCALE * rank:
        raise ArtifactError(
            f"{path}: lora_alpha must be above 0 and at most {MAX_SCALE:g} × r, got {shortened(alpha)}."
        )
    if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise ArtifactError(f"{path}: lora_dropout must be from 0 to below 1, got {shortened(dropout)}.")


def refuse_other_tensors(found: Shapes, expected: Shapes, path: Path) -> None:
    """Raises ArtifactError unless the file holds just the tensors that belong there, in their shapes."""
    if missing := sorted(expected.keys() - found.keys()):
        raise ArtifactError(f"{path} lacks {counted(len(missing), 'tensor')} (first: {missing[0]}).")
    if foreign := sorted(found.keys() - expected.keys()):
        raise ArtifactError(f"{path} holds {counted(len(foreign), 'tensor')} that do not belong (first: {foreign[0]}).")
    for name, shape in expected.items():
        if found[name] != shape:
            raise ArtifactError(f"{path}: {name} has shape {list(found[name])}, and its base asks for {list(shape)}.")


def adapter_shapes(network: nn.Module, config: Mapping[str, Any], head: Sequence[str], path: Path) -> Shapes:
    """What an adapter of this config holds for the base ``network``: low-rank weights, and the ``head`` as a whole."""
    if not {*head} <= {*config["modules_to_save"]} <= {*head, *ADDED_BY_PEFT}:
        raise ArtifactError(
            f"{path}: the head is {shortened(config['modules_to_save'])}, and the base's is {list(head)}."
        )
    shapes = dict(head_shapes(network, head))
    for target, layer in target_layers(network, config["target_modules"], head, path):
        if config["r"] > (most := 2 * min(layer.weight.shape)):  # PiSSA and OLoRA save twice the rank
            raise ArtifactError(f"{path}: r is {config['r']}; layer '{target}' takes at most {most}.")
        prefix, (out, into) = f"{PREFIX}{target}", layer.weight.shape
        shapes |= {prefix + DOWN: (config["r"], into), prefix + UP: (out, config["r"])}
        if config.get("use_dora"):
            shapes[f"{prefix}.lora_magnitude_vector"] = (out,)
    return shapes


def target_layers(
    network: nn.Module, targets: str | Sequence[str], head: Sequence[str], path: Path
) -> Iterator[tuple[str, nn.Linear]]:
    """The layers that PEFT adapts. It shortens long lists of names to endings that no other module has."""
    modules = [] if targets == NO_TARGETS else list(network.named_modules())
    heads = tuple(f"{name}." for name in head)
    found = set()
    for name, module in modules:
        own = {target for target in targets if is_named(name, target)}
        if not own:
            continue
        if not isinstance(module, nn.Linear) or f"{name}.".startswith(heads):
            raise ArtifactError(f"{path}: target_modules: '{name}' is no linear layer of the base's encoder.")
        found |= own
        yield name, module
    if modules and (unknown := sorted(set(targets) - found)):
        raise ArtifactError(f"{path}: '{unknown[0]}' is no linear layer of the base's encoder.")


def is_named(name: str, target: str) -> bool:
    """PEFT goes by endings."""
    return name == target or name.endswith(f".{target}")


def lora_scale(config: Mapping[str, Any]) -> float:
    """What the product of both low-rank factors is multiplied by."""
    return float(config["lora_alpha"] / (config["r"] ** 0.5 if config.get("use_rslora") else config["r"]))


def head_shapes(network: nn.Module, head: Sequence[str]) -> Iterator[tuple[str, tuple[int, ...]]]:
    for module in head:
        for name, tensor in network.get_submodule(module).state_dict().items():
            yield f"{PREFIX}{module}.{name}", tuple(tensor.shape)


def refuse_larger(described: Shapes, found: Shapes, path: Path) -> None:
    """Before room is made for what a config describes: it may not be much more than what its file holds."""
    wanted, held = (sum(math.prod(shape) for shape in shapes.values()) for shapes in (described, found))
    if wanted > 2 * held + SMALL:
        raise ArtifactError(f"{path} describes {wanted:,} weights, and its files hold {held:,}.")


def refuse_other_labels(found: Shapes, number: int, folder: Path) -> None:
    """A head has as many rows as there are labels; without one, no room is made for the labels that are stated."""
    if not any(shape[:1] == (number,) for shape in found.values()):
        raise ArtifactError(f"{folder} names {counted(number, 'label')}, and no tensor of it has as many rows.")


def refuse_not_finite(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    if bad := [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
        raise ArtifactError(f"{path}: {bad[0]} holds values that are not finite.")


def shortened(value: Any) -> str:
    text = FEW.repr(value) if not isinstance(value, float) or math.isfinite(value) else "not finite"
    return text if len(text) <= 60 else f"{text[:60]}…"
