"""Put a saved model, or a bank of adapters, into a repository on the Hub: all of it in one commit, or nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token
from huggingface_hub.errors import RepositoryNotFoundError

from nlp_transfer.errors import ConfigError, HubError
from nlp_transfer.hub.banks import BANK_FILE
from nlp_transfer.hub.content import Remote, is_same, look_at
from nlp_transfer.hub.edits import is_as_written
from nlp_transfer.hub.names import HUB_ID
from nlp_transfer.hub.patience import persistently
from nlp_transfer.hub.published import CARD_FILE, Publication, stage
from nlp_transfer.manifest import ADAPTER_FILES, MANIFEST_FILE, ONNX_FILES, WHOLE_FILES
from nlp_transfer.reporting.progress import say
from nlp_transfer.training.log import CONFUSION_FILE, CURVES_FILE

OURS = {*ADAPTER_FILES, *WHOLE_FILES, *ONNX_FILES, MANIFEST_FILE, CURVES_FILE, CONFUSION_FILE}
"""What a model that is replaced may have had."""
PATIENCE, BYTES_A_SECOND = 60.0, 100_000
"""Seconds for each try, and more for large files, at a slow connection's rate."""
MESSAGE = "Upload a model of nlp-transfer"


@dataclass(frozen=True)
class Sending:
    """What goes to which repository, and how."""

    api: HfApi
    repo: str
    files: dict[str, Path]
    """By name in the repository."""
    message: str
    replace_card: bool


def push(
    folder: str | Path,
    repo: str,
    *,
    public: bool = False,
    dry_run: bool = False,
    revision: str | None = None,
    tag: str | None = None,
    pull_request: bool = False,
    message: str = MESSAGE,
    licence: str | None = None,
    base_model: str | None = None,
    replace_card: bool = False,
    patience: float = PATIENCE,
) -> str:
    """Send the model in ``folder`` (of a run, or its model) to ``repo`` ("user/name") and give the commit's id. A
    folder of several such folders is sent as a bank, which ``AdapterBank.load`` reads.

    Only the files that the manifest lists are sent, with a card, and the pictures of the run where the model still
    stands in it. A new repository is private unless ``public``. ``revision`` is a branch, made if need be;
    ``pull_request`` opens one instead. Run again, it sends what is missing, and nothing if nothing is. A card that was
    edited on the Hub stays, unless ``replace_card``.

    Raises ConfigError for a missing token, names and rights, and adapters of several bases; ArtifactError for a damaged
    model, and for secrets in what would be sent; HubError where the Hub does not answer for half a minute.
    """
    check_names(repo, pull_request=pull_request, revision=revision)
    if not dry_run:
        refuse_no_way_there()
    with tempfile.TemporaryDirectory() as made:
        publication = Publication(repo, licence, base_model, patience, dry_run)
        files = stage(Path(folder).expanduser(), Path(made), publication)
        if dry_run:
            show(files)
            return ""
        seconds = patience + sum(path.stat().st_size for path in files.values()) / BYTES_A_SECOND
        sending = Sending(HfApi(), repo, files, message, replace_card)

        def attempt() -> str:
            make_room(sending, public=public, branch=revision)
            return propose(sending) if pull_request else send(sending, revision)

        commit = persistently(f"push to {repo}", attempt, seconds=seconds)
        if tag is not None:
            persistently(f"tag '{tag}' of {repo}", tagging(sending, tag, commit), seconds=seconds)
    say(f"{repo} holds it at {commit}.")
    return commit


def check_names(repo: str, *, pull_request: bool, revision: str | None) -> None:
    if not HUB_ID.fullmatch(repo) or repo.count("/") != 1:
        raise ConfigError(f"The repository must be named 'user/name', got '{repo}'.")
    if pull_request and revision is not None:
        raise ConfigError("A pull request goes to the main branch: leave the revision out.")


def refuse_no_way_there() -> None:
    if constants.HF_HUB_OFFLINE:
        raise ConfigError("HF_HUB_OFFLINE is set, so nothing can be pushed. Unset it, or pass --dry-run.")
    if not get_token():
        raise ConfigError("There is no token for the Hub. Log in with `hf auth login`, or set HF_TOKEN.")


def show(files: dict[str, Path]) -> None:
    """On standard output: what would be sent, and the card."""
    for name, path in files.items():
        print(f"{path.stat().st_size:>12,} bytes  {name}")
    print(f"\n{files[CARD_FILE].read_text('utf-8')}")


def make_room(to: Sending, *, public: bool, branch: str | None) -> None:
    """Raises ConfigError where the repository is open to all and that was not asked for."""
    try:
        info = to.api.model_info(to.repo)
    except RepositoryNotFoundError:
        to.api.create_repo(to.repo, private=not public, exist_ok=True)
    else:
        if not info.private and not public:
            raise ConfigError(f"{to.repo} is there already, and public. Pass --public, or name another one.")
    if branch is not None:
        to.api.create_branch(to.repo, branch=branch, exist_ok=True)


def send(to: Sending, revision: str | None, *, opens: bool = False) -> str:
    """One commit on what is there now, if anything differs. What differs afterwards raises HubError."""
    before = look_at(to.api, to.repo, revision)
    files = to.files if to.replace_card else without_edited_card(to, before)
    if is_complete(files, before.hashes):
        return before.commit
    additions = [CommitOperationAdd(name, path) for name, path in files.items()]
    deletions = [CommitOperationDelete(name) for name in stale(files, before.hashes)]
    made = to.api.create_commit(
        to.repo,
        [*additions, *deletions],
        commit_message=to.message,
        revision=revision,
        parent_commit=before.commit,
        create_pr=opens,
    )
    after = look_at(to.api, to.repo, made.pr_revision if opens else made.oid)
    if odd := differing(files, after.hashes):
        raise HubError(f"{to.repo} holds another {odd[0]} than was sent. Give the same command again.")
    return after.commit


def propose(to: Sending) -> str:
    """A pull request, unless one that is open holds the same already, or the main branch does."""
    for reference in to.api.list_repo_refs(to.repo, include_pull_requests=True).pull_requests or []:
        proposed = look_at(to.api, to.repo, reference.ref)
        if is_complete(to.files, proposed.hashes):
            return proposed.commit
    return send(to, None, opens=True)


def without_edited_card(to: Sending, before: Remote) -> dict[str, Path]:
    """Somebody's work on the card is not ours to undo."""
    card = to.files[CARD_FILE]
    if CARD_FILE not in before.hashes or is_same(card, before.hashes[CARD_FILE]):
        return to.files
    theirs = Path(to.api.hf_hub_download(to.repo, CARD_FILE, revision=before.commit))
    if is_as_written(theirs.read_text("utf-8", errors="replace")):
        return to.files
    say(f"The card of {to.repo} was not written by us, or edited since, and stays. To replace it, pass --replace-card.")
    return {name: path for name, path in to.files.items() if name != CARD_FILE}


def is_complete(files: dict[str, Path], theirs: dict[str, str]) -> bool:
    return not differing(files, theirs) and not stale(files, theirs)


def differing(files: dict[str, Path], theirs: dict[str, str]) -> list[str]:
    return [name for name, path in files.items() if name not in theirs or not is_same(path, theirs[name])]


def stale(files: dict[str, Path], theirs: dict[str, str]) -> list[str]:
    """Of a model, or of adapters of a bank, that stood there before."""
    inside = {*OURS, CARD_FILE} if BANK_FILE in theirs else set()
    return sorted(
        name
        for name in theirs.keys() - files.keys()
        if name in OURS or name == BANK_FILE or (name.count("/") == 1 and name.partition("/")[2] in inside)
    )


def tagging(to: Sending, tag: str, commit: str) -> Callable[[], None]:
    def attempt() -> None:
        tags = {reference.name: reference.target_commit for reference in to.api.list_repo_refs(to.repo).tags}
        if tags.get(tag, commit) != commit:
            raise ConfigError(f"{to.repo} has a tag '{tag}' already, at {tags[tag][:12]}. Name another one.")
        if tag not in tags:
            to.api.create_tag(to.repo, tag=tag, revision=commit)

    return attempt
