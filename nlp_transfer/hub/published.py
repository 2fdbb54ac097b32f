"""The files that a repository gets, made from a model folder. Nothing else of a run is read for them."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nlp_transfer.artifacts import name_the_base, write_manifest
from nlp_transfer.errors import ConfigError
from nlp_transfer.hub.card import Card, make_card
from nlp_transfer.hub.leaks import refuse_leaks, without_folders
from nlp_transfer.inspection import read_json
from nlp_transfer.known_checkpoints import MINILM_HUB_ID, PACKAGED_MINILM
from nlp_transfer.manifest import ADAPTER_FILES, Manifest, read_manifest
from nlp_transfer.saved_models import model_folder
from nlp_transfer.training.log import CONFUSION_FILE, CURVES_FILE, METRICS_FILE, SUMMARY_FILE

CARD_FILE = "README.md"
HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


@dataclass(frozen=True)
class Base:
    """The checkpoint that a model was made from, as others find it."""

    name: str
    """Its Hub id; of whole weights made from a folder, the folder's own name."""
    revision: str | None
    is_on_hub: bool


def stage(folder: Path, staged: Path, repo: str, *, base_model: str | None, licence: str | None) -> list[Path]:
    """Write what is to be sent into ``staged``: the model's own files as its manifest lists them, with the base's name
    on the Hub, and the card with its pictures.

    Raises ArtifactError as reading the model does, and for secrets; ConfigError where the base has no name on the Hub.
    """
    model = model_folder(folder)
    manifest = read_manifest(model)
    base = base_on_hub(manifest, base_model, model)
    for name in manifest.sha256:
        shutil.copyfile(model / name, staged / name)
    origin = replace(manifest.checkpoint, name=base.name, revision=base.revision)
    if (staged / ADAPTER_FILES[0]).exists():
        name_the_base(origin, staged / ADAPTER_FILES[0])
    samples = [sample | {"source": Path(str(sample.get("source", ""))).name} for sample in manifest.samples]
    published = replace(manifest, checkpoint=origin, samples=samples)
    write_manifest(published, staged)  # before the card, which people edit on the Hub
    summary = summary_beside(model)
    pictures = [name for name in (CURVES_FILE, CONFUSION_FILE) if summary and (model.parent / name).is_file()]
    for name in pictures:
        shutil.copyfile(model.parent / name, staged / name)
    card = Card(repo, published, base.name if base.is_on_hub else None, summary, tuple(pictures), licence)
    (staged / CARD_FILE).write_text(make_card(card), "utf-8")
    files = sorted(staged.iterdir())
    refuse_leaks(files)
    return files


def base_on_hub(manifest: Manifest, base_model: str | None, folder: Path) -> Base:
    origin = manifest.checkpoint
    name, revision = origin.name, origin.revision
    if base_model is not None:
        name, _, at = base_model.partition("@")
        revision = at or None
        if not HUB_ID.fullmatch(name):
            raise ConfigError(f"base_model must be a Hub id such as 'FacebookAI/roberta-base', got '{base_model}'.")
        return Base(name, revision, is_on_hub=True)
    if name in (PACKAGED_MINILM, MINILM_HUB_ID):
        return Base(MINILM_HUB_ID, revision, is_on_hub=True)
    if HUB_ID.fullmatch(name) and revision is not None:
        return Base(name, revision, is_on_hub=True)
    if manifest.adapter in ("none", "onnx"):
        return Base(Path(name).name, None, is_on_hub=False)
    raise ConfigError(
        f"{folder} was trained on '{name}', which others do not have. Pass --base-model with the Hub id of the same "
        "weights, or merge it and push the whole."
    )


def summary_beside(model: Path) -> dict[str, Any] | None:
    """Of the finished run that the model stands in, if it does."""
    path = model.parent / SUMMARY_FILE
    if model.name != "model" or not path.is_file() or not (model.parent / METRICS_FILE).is_file():
        return None
    summary = read_json(path)
    parts = {name: part | {"file": Path(part["file"]).name} for name, part in summary["data"].items()}
    return summary | {"data": parts, "command": without_folders(summary["command"])}
