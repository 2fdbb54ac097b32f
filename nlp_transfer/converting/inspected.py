"""The files of others against the network that they are for, before anything of them is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from transformers import AutoConfig, PreTrainedConfig

from nlp_transfer.checkpoint_folders import find, refuse_other_folders
from nlp_transfer.checkpoints import HeadKind, Model, described_shapes, load_tokenizer, skeleton
from nlp_transfer.errors import ArtifactError, counted, first_line
from nlp_transfer.fingerprints import hash_tokenizer
from nlp_transfer.inspection import (
    COUNTERS,
    FLOATS,
    PREFIX,
    Shapes,
    read_json,
    read_shapes,
    refuse_larger,
    refuse_odd_config,
)
from nlp_transfer.labels import LabelSet
from nlp_transfer.manifest import WHOLE_FILES

TWO_LABELS = LabelSet(("0", "1"))
"""For looking at a network whose labels are not known yet."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "spiece.model")


def read_config(folder: Path) -> PreTrainedConfig:
    try:
        return cast(PreTrainedConfig, AutoConfig.from_pretrained(folder, trust_remote_code=False))
    except Exception as error:  # a damaged config.json ends in a dozen types
        raise ArtifactError(f"{folder / WHOLE_FILES[0]} cannot be read: {first_line(error)}") from error


def rows_of(found: Shapes, outputs: Sequence[str], config: PreTrainedConfig, head: HeadKind, path: Path) -> int:
    """How many labels the last layer has. Raises ArtifactError where it is missing, or its tensors do not agree."""
    described = skeleton(config, TWO_LABELS, head).state_dict()
    shapes = [found.get(PREFIX + name, found.get(name, ())) for name in outputs]
    for name, shape in zip(outputs, shapes, strict=True):
        if not shape:
            raise ArtifactError(f"{path} lacks the last layer of the head, which would be random: {name}.")
        if shape[0] != shapes[0][0] or shape[1:] != tuple(described[name].shape[1:]):
            raise ArtifactError(f"{path}: {name} has shape {list(shape)}, which is no row for each label.")
    return int(shapes[0][0])


def refuse_other_sizes(found: Shapes, described: Shapes, path: Path) -> None:
    """Before room is made for what a config describes: its tensors must be those of the file, as far as names agree,
    and the file may hold no others but a pooler that is not used, and counters of positions.
    """
    common = found.keys() & described.keys()
    odd = sorted(name for name in common if found[name] != described[name])
    if odd or not common:
        what = f"{odd[0]} has shape {list(found[odd[0]])}" if odd else "no tensor has a name that belongs there"
        raise ArtifactError(f"{path} is not what its {WHOLE_FILES[0]} describes: {what}.")
    harmless = (".position_ids", ".pooler.dense.weight", ".pooler.dense.bias")
    if foreign := sorted(name for name in found.keys() - common if not name.endswith(harmless)):
        raise ArtifactError(f"{path} holds {counted(len(foreign), 'tensor')} that do not belong (first: {foreign[0]}).")


def inspected_base(spelled: str, head: HeadKind) -> PreTrainedConfig:
    """Of the base that an adapter names, which may be anybody's: looked at before room is made for it."""
    folder, _, _ = find(spelled)
    refuse_other_folders(folder, spelled)
    path = folder / WHOLE_FILES[0]
    refuse_odd_config(read_json(path), path)
    found: Shapes = {}
    for file in folder.glob("*.safetensors"):
        found |= read_shapes(file, kinds_read=FLOATS + COUNTERS)
    refuse_larger(described_shapes(folder, TWO_LABELS, head, found), found, path)
    return read_config(folder)


def refuse_other_tokenizer(folder: Path, base: Model) -> None:
    if any((folder / name).exists() for name in TOKENIZER_FILES):
        own = load_tokenizer(folder, str(folder))
        if hash_tokenizer(own) != base.origin.tokenizer_sha256:
            raise ArtifactError(
                f"{folder} holds another tokenizer than its base '{base.origin.name}'; ours come with it."
            )
