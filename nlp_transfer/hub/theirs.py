"""What stands in a repository already: which of it an earlier push has put there, and what a person has done since."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from nlp_transfer.errors import ArtifactError
from nlp_transfer.hub.banks import BANK_FILE, listed_hashes
from nlp_transfer.hub.content import Remote
from nlp_transfer.hub.edits import is_as_written
from nlp_transfer.inspection import MAX_JSON, read_json
from nlp_transfer.manifest import MANIFEST_FILE
from nlp_transfer.training.log import CONFUSION_FILE, CURVES_FILE

CARD_FILE = "README.md"
PICTURES = (CURVES_FILE, CONFUSION_FILE)


def is_card(name: str) -> bool:
    return name.rpartition("/")[2] == CARD_FILE


def is_picture(name: str) -> bool:
    return name.rpartition("/")[2] in PICTURES


def pushed_before(api: HfApi, repo: str, there: Remote) -> set[str]:
    """The files of the model or bank that stands there, as its own lists name them; cards a person has edited are none.

    Whatever else lies there is somebody's own.
    """

    def get(name: str) -> Path | None:
        if name not in there.hashes or there.sizes[name] > MAX_JSON:
            return None
        return Path(api.hf_hub_download(repo, name, revision=there.commit))

    folders, found = [""], set[str]()
    listing = get(BANK_FILE)
    if listing is not None:
        members = quietly(listed_hashes, listing) or {}
        folders, found = [f"{name}/" for name in members], {BANK_FILE, CARD_FILE}
    for folder in folders:
        manifest = get(f"{folder}{MANIFEST_FILE}")
        listed = (quietly(read_json, manifest) or {}).get("sha256") if manifest else None
        if isinstance(listed, dict):
            found |= {f"{folder}{name}" for name in (MANIFEST_FILE, CARD_FILE, *PICTURES, *listed)}
    own = found & there.hashes.keys()
    return {name for name in own if not is_card(name) or not is_edited(api, repo, there, name)}


def quietly(read: Callable[[Path], Mapping[str, Any]], path: Path) -> Mapping[str, Any] | None:
    """A damaged list says nothing of what is ours."""
    try:
        return read(path)
    except ArtifactError:
        return None


def is_edited(api: HfApi, repo: str, there: Remote, name: str) -> bool:
    """Whether a card there was not written by us, or worked on since."""
    if there.sizes[name] > MAX_JSON:
        return True
    card = Path(api.hf_hub_download(repo, name, revision=there.commit))
    return not is_as_written(card.read_text("utf-8", errors="replace"))
