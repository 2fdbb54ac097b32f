"""The base of a model by its name on the Hub, with the commit and licence that it has there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from nlp_transfer.errors import ConfigError, HubError
from nlp_transfer.hub.names import HUB_ID
from nlp_transfer.hub.patience import WAITS, persistently
from nlp_transfer.known_checkpoints import MINILM_HUB_ID, PACKAGED_MINILM
from nlp_transfer.manifest import Manifest
from nlp_transfer.reporting.progress import say

LICENCE = re.compile(r"[\w.+-]{1,60}")


@dataclass(frozen=True)
class Base:
    """The checkpoint that a model was made from, as others find it."""

    name: str
    """Its Hub id; of whole weights made from a folder, the folder's own name."""
    revision: str | None
    is_on_hub: bool
    licence: str | None = None


def base_on_hub(manifest: Manifest, base_model: str | None, folder: Path) -> Base:
    """As the user names it ("org/name" or "org/name@revision"), else as the manifest does.

    Raises ConfigError where the base has no name on the Hub.
    """
    origin = manifest.checkpoint
    name, revision = origin.name, origin.revision
    if base_model is not None:
        name, _, at = base_model.partition("@")
        if not HUB_ID.fullmatch(name):
            raise ConfigError(f"base_model must be a Hub id such as 'FacebookAI/roberta-base', got '{base_model}'.")
        return Base(name, at or None, is_on_hub=True)
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


def looked_up(base: Base, *, patience: float, dry_run: bool, public: bool) -> Base:
    """With its commit, where a branch was named or nothing, and its licence. A dry run asks once, and goes on without.

    Raises ConfigError where the Hub has no such base, or not for this token, and for one that is private under a model
    that is public; HubError where it does not answer.
    """
    if not base.is_on_hub:
        return base
    try:
        info = persistently(
            f"base {base.name}",
            lambda: HfApi().model_info(base.name, revision=base.revision),
            seconds=patience,
            waits=() if dry_run else WAITS,
        )
    except HubError as error:
        if not dry_run:
            raise
        say(f"{error} The card lacks the commit and licence of the base.")
        return base
    if info.private and public:
        raise ConfigError(f"The base {base.name} is private, and a public card would tell of it. Leave --public out.")
    return Base(base.name, info.sha, is_on_hub=True, licence=licence_stated(info.card_data))


def licence_stated(card: Any) -> str | None:
    """By whoever wrote the card: a word, or nothing; with "other" there is a name of its own beside it."""
    stated = getattr(card, "license", None)
    if stated == "other":
        stated = getattr(card, "license_name", None) or stated
    return stated if isinstance(stated, str) and LICENCE.fullmatch(stated) else None
