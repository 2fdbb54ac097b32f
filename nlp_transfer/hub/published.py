"""The files that a repository gets, made from a model folder, or from a folder of several; nothing else is read.

a model:  README.md, manifest.json, the files that it lists, and the pictures of its run
a bank:   README.md, bank.json, and a folder like that for each adapter
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nlp_transfer.artifacts import name_the_base, write_manifest
from nlp_transfer.data.tables import HUB_PREFIX
from nlp_transfer.errors import ConfigError, quoted
from nlp_transfer.fingerprints import hash_files
from nlp_transfer.hub.bank_card import make_bank_card
from nlp_transfer.hub.banks import BANK_FILE, BANK_FORMAT, members_of
from nlp_transfer.hub.bases import Base, base_on_hub, looked_up
from nlp_transfer.hub.card import Card, make_card
from nlp_transfer.hub.edits import sealed
from nlp_transfer.hub.leaks import refuse_leaks, without_folders
from nlp_transfer.hub.theirs import CARD_FILE
from nlp_transfer.inspection import read_json
from nlp_transfer.manifest import ADAPTER_FILES, MANIFEST_FILE, Manifest, read_manifest
from nlp_transfer.saved_models import model_folder
from nlp_transfer.training.log import CONFUSION_FILE, CURVES_FILE, METRICS_FILE, SUMMARY_FILE


@dataclass(frozen=True)
class Publication:
    """What the user says of a model that is published."""

    repo: str
    licence: str | None
    base_model: str | None
    patience: float
    """Seconds for an answer of the Hub."""
    dry_run: bool
    public: bool
    examples: bool
    """Whether texts of the data go with it."""


def stage(folder: Path, staged: Path, publication: Publication) -> dict[str, Path]:
    """Write what is to be sent into ``staged``, and give it by its names in the repository.

    Raises ArtifactError as reading a model does, and for secrets; ConfigError where the base has no name on the Hub.
    """
    members = members_of(folder)
    if members:
        stage_bank(members, staged, publication)
    else:
        model = model_folder(folder)
        manifest = read_manifest(model)
        base = base_of(manifest, model, publication)
        write_card(make_card(stage_model(model, manifest, staged, base, publication)), staged)
    files = {path.relative_to(staged).as_posix(): path for path in sorted(staged.rglob("*")) if path.is_file()}
    refuse_leaks(staged, files.values())
    return files


def base_of(manifest: Manifest, model: Path, publication: Publication) -> Base:
    base = base_on_hub(manifest, publication.base_model, model)
    if base.name == publication.repo:
        raise ConfigError(f"{base.name} is the base of {model}. Name a repository of its own.")
    return looked_up(base, patience=publication.patience, dry_run=publication.dry_run, public=publication.public)


def num_examples(files: Mapping[str, Path]) -> int:
    """Texts of the data that go with what was staged."""
    manifests = [path for name, path in files.items() if Path(name).name == MANIFEST_FILE]
    return sum(len(read_json(path)["samples"]) for path in manifests)


def stage_model(
    model: Path, manifest: Manifest, staged: Path, base: Base, publication: Publication, member: str = ""
) -> Card:
    """All but the card, which is given as what it is made from."""
    for name in manifest.sha256:
        shutil.copyfile(model / name, staged / name)
    origin = replace(manifest.checkpoint, name=base.name, revision=base.revision)
    if (staged / ADAPTER_FILES[0]).exists():
        name_the_base(origin, staged / ADAPTER_FILES[0])
    samples = [sample | {"source": Path(str(sample.get("source", ""))).name} for sample in manifest.samples]
    if not publication.examples:
        samples = []
    published = replace(manifest, checkpoint=origin, samples=samples)
    write_manifest(published, staged)  # before the card, which people edit on the Hub
    summary = summary_beside(model, base.name)
    pictures = [name for name in (CURVES_FILE, CONFUSION_FILE) if summary and (model.parent / name).is_file()]
    for name in pictures:
        shutil.copyfile(model.parent / name, staged / name)
    return Card(publication.repo, member, published, base, summary, tuple(pictures), publication.licence)


def stage_bank(members: Mapping[str, Path], staged: Path, publication: Publication) -> None:
    """Each adapter in a folder of its own with its own card, a list of them, and a card of the whole."""
    manifests = {name: read_manifest(model) for name, model in members.items()}
    refuse_what_shares_no_base(manifests, members)
    first = next(iter(members))
    base = base_of(manifests[first], members[first], publication)
    cards = []
    for name, model in members.items():
        (staged / name).mkdir()
        cards.append(stage_model(model, manifests[name], staged / name, base, publication, member=name))
        write_card(make_card(cards[-1]), staged / name)
    hashes = {name: hash_files([staged / name / MANIFEST_FILE]) for name in members}
    listed = json.dumps({"format": BANK_FORMAT, "adapters": hashes}, indent=2)
    (staged / BANK_FILE).write_text(listed + "\n", "utf-8", newline="\n")
    write_card(make_bank_card(cards), staged)


def refuse_what_shares_no_base(manifests: Mapping[str, Manifest], members: Mapping[str, Path]) -> None:
    """What ``AdapterBank.load`` would refuse: whole weights, DoRA, and adapters of several bases."""
    for name, manifest in manifests.items():
        if manifest.adapter not in ("lora", "head"):
            raise ConfigError(f"A bank holds adapters, and '{name}' holds whole weights. Push it by itself.")
        if read_json(members[name] / ADAPTER_FILES[0]).get("use_dora"):
            raise ConfigError(f"'{name}' uses DoRA, which changes the base's weights for all. Push it by itself.")
    # not the hash of the encoder, which a tagger reads without its pooler
    bases = {name: (m.checkpoint.weights_sha256, m.checkpoint.tokenizer_sha256) for name, m in manifests.items()}
    first = next(iter(bases))
    if others := [name for name in bases if bases[name] != bases[first]]:
        raise ConfigError(
            f"A bank holds adapters of one base: {quoted(others)} {'was' if len(others) == 1 else 'were'} trained on "
            f"another than '{first}'. Push them by themselves."
        )


def write_card(card: str, folder: Path) -> None:
    (folder / CARD_FILE).write_text(sealed(card), "utf-8", newline="\n")


def summary_beside(model: Path, base: str) -> dict[str, Any] | None:
    """Of the finished run that the model stands in, if it does; ``base`` is what others call its checkpoint."""
    path = model.parent / SUMMARY_FILE
    if model.name != "model" or not path.is_file() or not (model.parent / METRICS_FILE).is_file():
        return None
    summary = read_json(path)
    parts = {name: part | {"file": without_folder_of(part["file"])} for name, part in summary["data"].items()}
    return summary | {"data": parts, "command": without_folders(summary["command"], base)}


def without_folder_of(file: str) -> str:
    """A data set on the Hub ("hub:org/name/train") keeps its name."""
    return file if file.startswith(HUB_PREFIX) else Path(file).name
