"""The folder that the name of a checkpoint stands for: on the Hub, on this machine, or in an installed package."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from nlp_transfer.durable import as_path
from nlp_transfer.errors import CheckpointError, first_line
from nlp_transfer.known_checkpoints import PACKAGE_PREFIX

SPELLINGS = (
    "a Hub id such as 'FacebookAI/roberta-base' (with @revision if wanted), a folder, or 'package:module/folder'"
)
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]


def find(checkpoint: str) -> tuple[Path, str, str | None]:
    """The local folder, the name without revision, and the commit if it came from the Hub."""
    if checkpoint.startswith(PACKAGE_PREFIX):
        return find_in_package(checkpoint), checkpoint, None
    folder = as_path(checkpoint)
    if folder.is_dir():
        return folder, str(folder.resolve()), None
    name, _, revision = checkpoint.partition("@")
    if checkpoint.startswith((".", "/", "~")) or not HUB_ID.fullmatch(name):
        raise CheckpointError(f"There is no folder '{checkpoint}'. A checkpoint is {SPELLINGS}.")
    folder = download(name, revision or None)
    return folder, name, folder.name


def find_in_package(checkpoint: str) -> Path:
    module, _, inside = checkpoint.removeprefix(PACKAGE_PREFIX).partition("/")
    spec = find_spec(module) if module.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise CheckpointError(
            f"No installed package '{module}' for checkpoint '{checkpoint}'. "
            f"Install it with pip, or name {SPELLINGS} that holds the same weights."
        )
    folder = Path(spec.submodule_search_locations[0], inside)
    if not folder.is_dir():
        raise CheckpointError(f"The installed package '{module}' has no folder '{inside}'.")
    return folder


@contextmanager
def quiet_hub() -> Iterator[None]:
    """Without the Hub's bars where no person sees them move, unless the user has settled that in the environment."""
    is_settled = constants.HF_HUB_DISABLE_PROGRESS_BARS is not None
    if is_settled or sys.stderr.isatty() or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def download(name: str, revision: str | None) -> Path:
    try:
        with quiet_hub():
            return Path(
                huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=FILES, ignore_patterns="*/*")
            )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        spelling = f"{name}@{revision}" if revision else name
        raise CheckpointError(
            f"Checkpoint '{spelling}' is no folder here and could not be downloaded from the Hub ({why_not(error)}; a "
            f"checkpoint is {SPELLINGS}."
        ) from error


def why_not(error: Exception) -> str:
    """What has happened and, behind a bracket, what to do."""
    if isinstance(error, GatedRepoError):  # before its base class
        return "it asks for consent first). Give that on its page, and log in with `hf auth login` or set HF_TOKEN"
    if isinstance(error, RevisionNotFoundError):
        return "it has no such revision). Check the revision"
    if isinstance(error, RepositoryNotFoundError) or status_of(error) == 401:
        how = "" if get_token() else ", and, if it is private, log in with `hf auth login` or set HF_TOKEN"
        return f"there is none, or no right to read it). Check the spelling{how}"
    return f"{first_line(error).rstrip('.')}). Check the spelling and the network"


def status_of(error: Exception) -> int:
    """Of an answer of the Hub; 0 where there was none."""
    response = getattr(error, "response", None)
    return int(response.status_code) if response is not None else 0


def refuse_other_folders(folder: Path, checkpoint: str) -> None:
    """What is no checkpoint, but often named as one, and what would be read from elsewhere."""
    is_adapter = (folder / "adapter_config.json").is_file()
    if not is_adapter and any(folder.glob("*.safetensors")) and (folder / "config.json").is_file():
        refuse_files_elsewhere(folder)
        return
    if is_adapter:  # beside whole weights too: transformers would put it on top of them
        raise CheckpointError(
            f"'{checkpoint}' is an adapter, not a checkpoint. Name the checkpoint it was trained on; an adapter is "
            "loaded with nt.load."
        )
    raise CheckpointError(
        f"Checkpoint '{checkpoint}' lacks config.json or weights in safetensors, the only format read here. On the "
        "Hub a revision such as @refs/pr/1 may have them; else convert it with transformers' save_pretrained."
    )


def refuse_files_elsewhere(folder: Path) -> None:
    """transformers follows the names in an index wherever they lead (CVE-2026-69112), and waits for a pipe for ever."""
    if pipes := [path for path in folder.iterdir() if not (path.is_file() or path.is_dir())]:
        raise CheckpointError(f"{pipes[0]} is no plain file. Remove it.")
    for index in folder.glob("*.safetensors.index.json"):
        try:
            names = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
            odd = [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(f"{index} is damaged: {first_line(error)}.") from error
        if odd:
            raise CheckpointError(f"{index} names '{odd[0]}', which is no safetensors file of this folder.")
