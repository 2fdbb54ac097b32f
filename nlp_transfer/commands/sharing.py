"""Models on the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional


def push(
    folder: Positional[Path],
    repo: Positional[str],
    public: bool = False,
    dry_run: bool = False,
    revision: str | None = None,
    tag: str | None = None,
    pull_request: bool = False,
    message: str = "Upload a model of nlp-transfer",
    license: Annotated[str | None, tyro.conf.arg(aliases=["--licence"])] = None,  # noqa: A002
    base_model: str | None = None,
    replace_card: bool = False,
    examples: bool = True,
) -> None:
    """Put a model, or a bank of adapters, on the Hub, with a card: its own files alone; prints the commit.

    Args:
        folder: Folder of a run, or its model; or a folder of several of them, with adapters of one base.
        repo: Repository, as user/name; made if it is not there.
        public: Let everybody see it; a new repository is private otherwise.
        dry_run: List what would be sent, print the card, and send nothing.
        revision: Branch, made if it is not there.
        tag: Name for the commit.
        pull_request: Propose it in a pull request.
        message: First line of the commit.
        license: Of the model, such as apache-2.0, for the card.
        base_model: Hub id of the base, as org/name or org/name@revision, where it was trained from a folder.
        replace_card: Replace the card there, also if it was edited on the Hub.
        examples: Send the few texts of the data that the model keeps, and show three of them in the card.
    """
    from nlp_transfer.hub.push import push as push_model

    settings = {"public": public, "dry_run": dry_run, "revision": revision, "tag": tag, "pull_request": pull_request}
    settings |= {
        "message": message,
        "license": license,
        "base_model": base_model,
        "replace_card": replace_card,
        "examples": examples,
    }
    if commit := push_model(folder, repo, **settings):  # type: ignore[arg-type]
        print(commit)


def pull(
    repo: Positional[str],
    output: Positional[Path | None] = None,
    revision: str | None = None,
    overwrite: bool = False,
) -> None:
    """Get a model, or a bank, from the Hub, every file compared with its hash; prints the folder.

    Args:
        repo: Repository, as user/name or user/name@revision.
        output: Folder to write; if not given, it stays in the cache.
        revision: Branch, tag or commit.
        overwrite: Replace a model that stands there.
    """
    from nlp_transfer.hub.pull import pull as pull_model

    print(pull_model(repo, output, revision=revision, overwrite=overwrite))
