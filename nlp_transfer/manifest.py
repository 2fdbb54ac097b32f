"""``manifest.json`` of a saved model: what belongs to it beside its weights; read with every field checked."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from nlp_transfer.checkpoints import Origin
from nlp_transfer.errors import ArtifactError
from nlp_transfer.fingerprints import hash_files
from nlp_transfer.inspection import RUNNABLE, read_json, read_shapes, refuse_odd_files
from nlp_transfer.metrics import Metrics

FORMAT = 1
MANIFEST_FILE = "manifest.json"
LARGE_FILES = ("model.safetensors", "model.onnx")
MAX_BYTES = {"adapter_model.safetensors": 2**31}
MAX_OTHER = 2**28
"""Bytes of tokenizers and settings."""
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
WHOLE_FILES = ("config.json", "model.safetensors")
ONNX_FILES = ("config.json", "model.onnx")
FILES = {"lora": ADAPTER_FILES, "head": ADAPTER_FILES, "none": WHOLE_FILES, "onnx": ONNX_FILES}


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What belongs to a model beside its weights."""

    task: dict[str, Any]
    """Name, labels in the order of their ids, and what else the task needs."""
    max_tokens: int
    """Longest input in tokens."""
    adapter: str
    """lora, head or none: which weights the folder holds; onnx: all of them, in a graph for onnxruntime."""
    checkpoint: Origin
    """The base. Its encoder and tokenizer are compared by their hashes when the model is loaded."""
    scores: dict[str, Metrics]
    """By part of the data."""
    samples: list[dict[str, Any]]
    """A few examples with their predictions, to try a loaded model with."""
    versions: dict[str, str]
    """Of the libraries that made it."""
    sha256: dict[str, str]
    """Of the other files."""
    format: int = FORMAT


FIELD_TYPES = {
    "task": dict,
    "max_tokens": int,
    "adapter": str,
    "checkpoint": dict,
    "scores": dict,
    "samples": list,
    "versions": dict,
    "sha256": dict,
    "format": int,
}


def read_manifest(folder: Path) -> Manifest:
    """Raises ArtifactError when the manifest is damaged, or a file is not the one that was saved."""
    path = folder / MANIFEST_FILE
    if not path.is_file():
        others = [name for name in (ADAPTER_FILES[0], WHOLE_FILES[0]) if (folder / name).is_file()]
        mend = "`nlp-transfer convert` makes one of it." if others else "Name the 'model' folder of a run."
        raise ArtifactError(f"{folder} is no saved model: it has no {MANIFEST_FILE}. {mend}")
    refuse_odd_files(folder)
    raw = read_json(path)
    check_fields(raw, path)
    manifest = Manifest(**{**raw, "checkpoint": Origin(**raw["checkpoint"])})
    check_files(manifest, folder)
    return manifest


def check_fields(raw: dict[str, Any], path: Path) -> None:
    """Names, types and what later code takes for granted of the values."""
    if raw.get("format") != FORMAT:
        raise ArtifactError(f"{path}: format {raw.get('format')} is unknown here; this version reads {FORMAT}.")
    if odd := sorted(set(FIELD_TYPES) ^ set(raw)):
        raise damaged(path, f"field '{odd[0]}' is {'unknown' if odd[0] in raw else 'missing'}")
    for name, kind in FIELD_TYPES.items():
        if not isinstance(raw[name], kind) or isinstance(raw[name], bool):
            raise damaged(path, f"field '{name}' is no {kind.__name__}")
    if raw["adapter"] not in FILES:
        raise damaged(path, f"adapter '{raw['adapter']:.40}' is none of {', '.join(FILES)}")
    labels = raw["task"].get("labels")
    if not isinstance(labels, list) or not labels or not all(isinstance(label, str) for label in labels):
        raise damaged(path, "task.labels is no list of names")
    if len(set(labels)) < len(labels) or not isinstance(raw["task"].get("name"), str):
        raise damaged(path, "task has a label twice, or no name")
    if not all(isinstance(part, dict) and all(map(is_number, part.values())) for part in raw["scores"].values()):
        raise damaged(path, "scores hold something else than numbers")
    words = "words" if raw["task"]["name"] == "ner" else "text"
    if not all(isinstance(sample, dict) and isinstance(sample.get(words), str | list) for sample in raw["samples"]):
        raise damaged(path, "samples hold something else than texts")
    if set(raw["checkpoint"]) != {field.name for field in fields(Origin)}:
        raise damaged(path, "checkpoint has other fields than it should")
    if not all(
        isinstance(value, str) or (key, value) == ("revision", None) for key, value in raw["checkpoint"].items()
    ):
        raise damaged(path, "checkpoint holds something else than words")
    if raw["max_tokens"] < 1:
        raise damaged(path, f"max_tokens is {raw['max_tokens']}")


def is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def damaged(path: Path, reason: str) -> ArtifactError:
    return ArtifactError(f"{path} is damaged ({reason}). Get the folder again from where it was made.")


def refuse_odd_size(path: Path) -> None:
    """Before it is hashed: of a file that states its own size, what it states; of others, what is usual."""
    if path.suffix == ".safetensors":
        read_shapes(path)
    most = MAX_BYTES.get(path.name, path.stat().st_size if path.name in LARGE_FILES else MAX_OTHER)
    if path.stat().st_size > most:
        raise ArtifactError(f"{path} has {path.stat().st_size:,} bytes; at most {most:,} are read.")


def check_files(manifest: Manifest, folder: Path) -> None:
    for name in {*FILES[manifest.adapter], *manifest.sha256}:
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise ArtifactError(f"{folder} lacks {name}, so the model is incomplete. Get the whole folder again.")
        if path.suffix.lower() in RUNNABLE:
            raise damaged(folder / MANIFEST_FILE, f"it lists {name}, which may hold code")
        refuse_odd_size(path)
        if hash_files([path]) != manifest.sha256.get(name):
            raise ArtifactError(f"{path} is not the file that was saved (sha256 differs). Get the whole folder again.")
