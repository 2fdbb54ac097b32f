"""Adapters of one base that are kept together: a folder of model folders, or of runs, here or on the Hub."""

from __future__ import annotations

from pathlib import Path

from nlp_transfer.errors import ArtifactError, ConfigError, quoted
from nlp_transfer.fingerprints import hash_files
from nlp_transfer.hub.names import MEMBER
from nlp_transfer.inspection import read_json
from nlp_transfer.manifest import MANIFEST_FILE
from nlp_transfer.reporting.progress import say
from nlp_transfer.saved_models import model_folder

BANK_FILE, BANK_FORMAT = "bank.json", 1
MAX_MEMBERS = 1000


def members_of(folder: Path) -> dict[str, Path]:
    """Model folders by name, those that ``bank.json`` lists or else all that are here; none if ``folder`` is a model.

    Raises ArtifactError for a list that is damaged, ConfigError for names that a repository's folder cannot have.
    """
    if (folder / BANK_FILE).is_file():
        return listed_members(folder)
    if not folder.is_dir() or is_model(folder):
        return {}
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = {path.name: model_folder(path) for path in inside if is_model(path)}
    if odd := [name for name in found if not MEMBER.fullmatch(name)]:
        raise ConfigError(f"{folder / odd[0]}: an adapter's name has letters, digits, and _ . - only. Rename it.")
    if found and (others := [path.name for path in inside if path.name not in found]):
        say(f"{folder}: left out, as they hold no saved model: {quoted(others)}.")
    return found


def is_model(folder: Path) -> bool:
    return any((path / MANIFEST_FILE).is_file() for path in (folder, folder / "model"))


def listed_members(folder: Path) -> dict[str, Path]:
    """Raises ArtifactError, too, for an adapter that is missing or another one than was listed."""
    hashes = listed_hashes(folder / BANK_FILE)
    for name, sha256 in hashes.items():
        path = folder / name / MANIFEST_FILE
        if not path.is_file() or hash_files([path]) != sha256:
            raise ArtifactError(f"{path} is not the one that {BANK_FILE} lists. Get the whole folder again.")
    return {name: folder / name for name in hashes}


def listed_hashes(path: Path) -> dict[str, str]:
    """By the adapter's name, the sha256 of its manifest."""
    raw = read_json(path)
    if raw.get("format") != BANK_FORMAT:
        raise ArtifactError(f"{path}: format {raw.get('format')!r:.40} is unknown here; this reads {BANK_FORMAT}.")
    hashes = raw.get("adapters")
    if not isinstance(hashes, dict) or not 0 < len(hashes) <= MAX_MEMBERS:
        raise ArtifactError(f"{path} is damaged: 'adapters' is no list of 1 to {MAX_MEMBERS} adapters.")
    for name, sha256 in hashes.items():
        if not MEMBER.fullmatch(name) or not isinstance(sha256, str):
            raise ArtifactError(f"{path} is damaged at {name!r:.60}. Get the whole folder again.")
    return hashes
