"""A model from the Hub, in its cache: pinned to a commit, each file compared with the hash that the Hub keeps of it."""

from __future__ import annotations

import glob
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.file_download import repo_folder_name

from nlp_transfer.artifacts import FROM_THE_HUB, put_in_place, refuse_existing, refuse_other_content, staged_for
from nlp_transfer.checkpoint_folders import quiet_hub
from nlp_transfer.durable import as_path, replace_file
from nlp_transfer.errors import ArtifactError, ConfigError, HubError
from nlp_transfer.hub.banks import BANK_FILE, listed_hashes, members_of
from nlp_transfer.hub.content import Remote, is_same, look_at
from nlp_transfer.hub.names import HUB_ID
from nlp_transfer.hub.patience import persistently
from nlp_transfer.hub.push import BYTES_A_SECOND, PATIENCE
from nlp_transfer.hub.theirs import CARD_FILE
from nlp_transfer.inspection import read_json
from nlp_transfer.manifest import MANIFEST_FILE, read_manifest
from nlp_transfer.reporting.progress import say

MOST_BYTES = 2**33
"""Of a model's files together."""


def pull(repo: str, output: str | Path | None = None, *, revision: str | None = None, overwrite: bool = False) -> Path:
    """The folder of the model, or bank, in ``repo`` ("user/name") at a branch, tag or commit: in the cache, or copied
    to ``output``.

    With HF_HUB_OFFLINE, what the cache has of that revision. Raises ConfigError for a repository that cannot be read,
    ArtifactError for files that are not what the Hub says they are, HubError where it does not answer.
    """
    if output is not None:
        output = as_path(output)
        refuse_taken(output, overwrite=overwrite)
    name, _, at = repo.partition("@")
    if not HUB_ID.fullmatch(name):
        raise ConfigError(f"A repository is named 'user/name', got '{repo}'.")
    if at and revision is not None:
        raise ConfigError(f"'{repo}' names a revision already, and '{revision}' is another. Leave one out.")
    wanted = revision or at or None
    folder = from_cache(name, wanted) if constants.HF_HUB_OFFLINE else from_hub(name, wanted)
    if output is None:
        return folder
    copy(folder, output)
    return output


def copy(folder: Path, output: Path) -> None:
    """What belongs to it, the files themselves where the cache holds links; whole, or what was there before."""
    staged = staged_for(output)
    try:
        for name in content(folder):
            (staged / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, staged / name)
        put_in_place(staged, output)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def content(folder: Path) -> list[str]:
    """The files of a model, or of a bank and its adapters, by their own lists; cards that are there."""
    members = members_of(folder)
    inside = [f"{name}/" for name in members] if members else [""]
    cards = [f"{place}{name}" for place in {"", *inside} for name in FROM_THE_HUB if (folder / place / name).is_file()]
    listed = [file for place in inside for file in listed_files(folder, f"{place}{MANIFEST_FILE}")]
    manifests = [f"{place}{MANIFEST_FILE}" for place in inside]
    return [*manifests, *listed, *cards, *([BANK_FILE] if members else [])]


def refuse_taken(output: Path, *, overwrite: bool) -> None:
    """Banks are replaced as models are: only if nothing else lies there."""
    if not (overwrite and (output / BANK_FILE).is_file()):
        return refuse_existing(output, overwrite=overwrite)
    known = {BANK_FILE, CARD_FILE, *members_of(output)}
    for path in output.iterdir():
        if path.name not in known:
            raise ConfigError(f"{path} is no part of the bank that would be replaced. Name another folder.")
        if path.is_dir():
            refuse_other_content(path)
    return None


def local_folder(model: str | Path, revision: str | None = None) -> Path:
    """A folder as it is; the name of a repository pulled. What begins with a folder that is here ("runs/modle") is a
    path, though it may be misspelled. Raises ConfigError for a revision of a folder.
    """
    path = as_path(model)
    looks_local = (
        str(model).startswith((".", "/", "~")) or path.exists() or (len(path.parts) > 1 and path.parent.is_dir())
    )
    name, _, _ = str(model).partition("@")
    if looks_local or not HUB_ID.fullmatch(name) or name.count("/") != 1:
        if revision is not None:
            raise ConfigError(f"revision belongs to a repository on the Hub, and {model} is a folder.")
        return path
    return pull(str(model), revision=revision)


def named_models(
    models: str | Path | Sequence[str | Path] | Mapping[str, str | Path], revision: str | None
) -> dict[str, str | Path]:
    """Of several models each under its name; of one bank, here or on the Hub, its adapters.

    Raises ConfigError where one model stands in place of several.
    """
    if isinstance(models, str | Path):
        if members := members_of(local_folder(models, revision)):
            return dict(members)
        raise ConfigError(f"{models} is no bank of adapters. Give a list of models, such as ['{models}'].")
    if revision is not None:
        raise ConfigError("revision belongs to one repository. Write each as 'user/name@revision'.")
    return dict(models) if isinstance(models, Mapping) else {str(model): model for model in models}


def from_hub(name: str, revision: str | None) -> Path:
    api, what = HfApi(), f"pull of {name}"
    remote = persistently(what, lambda: look_at(api, name, revision), seconds=PATIENCE)
    if not {MANIFEST_FILE, BANK_FILE} & remote.hashes.keys():
        raise ArtifactError(
            f"{name} has no {MANIFEST_FILE}, so it is no model of nlp-transfer. `nlp-transfer convert` makes one of it."
        )
    manifests = [MANIFEST_FILE]
    if BANK_FILE in remote.hashes:
        members = listed_hashes(fetch(name, remote, [BANK_FILE], what) / BANK_FILE)
        manifests = [f"{member}/{MANIFEST_FILE}" for member in members]
    folder = fetch(name, remote, manifests, what)
    listed = {file for manifest in manifests for file in listed_files(folder, manifest)}
    cards = {f"{manifest.removesuffix(MANIFEST_FILE)}{name}" for manifest in manifests for name in FROM_THE_HUB}
    there = {*listed, *cards, *manifests, CARD_FILE, BANK_FILE} & remote.hashes.keys()
    fetch(name, remote, sorted(there), what)
    check(folder)
    note_commit(name, revision or constants.DEFAULT_REVISION, remote.commit)
    return folder


def check(folder: Path) -> None:
    """Raises ArtifactError where a model, or one of a bank, is not what its lists say."""
    for model in members_of(folder).values() or [folder]:
        read_manifest(model)


def listed_files(folder: Path, manifest: str) -> list[str]:
    """By their names in the repository. What is odd about a manifest is said when the model is read."""
    listed = read_json(folder / manifest).get("sha256")
    inside = manifest.removesuffix(MANIFEST_FILE)
    return [f"{inside}{file}" for file in listed if "/" not in file] if isinstance(listed, dict) else []


def fetch(name: str, remote: Remote, files: list[str], what: str) -> Path:
    """The folder of the commit in the cache, with these files in it.

    Neither way of download compares hashes: not LFS over http, and not Xet.
    """
    if lacking := [file for file in files if file not in remote.hashes]:
        raise ArtifactError(f"{name} lacks {lacking[0]}, so it is incomplete. Its owner can push it again.")
    size = sum(remote.sizes[file] for file in files)
    if size > MOST_BYTES:
        raise ArtifactError(f"{name} has {size:,} bytes; at most {MOST_BYTES:,} are pulled.")
    patterns = list(map(glob.escape, files))
    with quiet_hub():
        folder = Path(
            persistently(
                what,
                lambda: snapshot_download(name, revision=remote.commit, allow_patterns=patterns),
                seconds=PATIENCE + size / BYTES_A_SECOND,
            )
        )
    for file in files:
        if not (folder / file).is_file() or not is_same(folder / file, remote.hashes[file]):
            (folder / file).resolve().unlink(missing_ok=True)  # or the cache would give it again
            raise ArtifactError(f"{name}: {file} came changed (its hash is not what the Hub says). Pull it again.")
    return folder


def from_cache(name: str, revision: str | None) -> Path:
    """Without a network. The cache names each file by its hash, and what lists the others is held against that."""
    try:
        listing = [MANIFEST_FILE, BANK_FILE]  # the others may lack what was never pulled, such as pictures
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True, allow_patterns=listing))
    except LocalEntryNotFoundError as error:
        where = f"{name}@{revision}" if revision else name
        raise HubError(
            f"{where} is not in the cache, and HF_HUB_OFFLINE is set. Pull it once with a network."
        ) from error
    for path in (folder / MANIFEST_FILE, folder / BANK_FILE):
        if path.is_symlink() and not is_same(path, path.readlink().name):
            raise ArtifactError(f"{path} was changed since it was pulled. Remove it, and pull it again.")
    check(folder)
    return folder


def note_commit(name: str, revision: str, commit: str) -> None:
    """Where a branch or tag stands, as the cache keeps it: for work without a network, and to see that it moved."""
    path = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=name, repo_type="model"), "refs", revision)
    before = path.read_text("utf-8") if path.is_file() else None
    if before not in (None, commit):
        say(f"{name}: {revision} has moved since it was last pulled, from {before[:12]} to {commit[:12]}.")
    if commit not in (before, revision):
        with suppress(OSError):  # a cache that cannot be written to, or another process that writes the same
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, commit.encode())
