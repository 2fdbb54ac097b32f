"""Put a saved model into a repository on the Hub: all of it in one commit, or nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import RepositoryNotFoundError

from nlp_transfer.errors import ConfigError, HubError
from nlp_transfer.hub.content import is_same, look_at
from nlp_transfer.hub.patience import persistently
from nlp_transfer.hub.published import CARD_FILE, HUB_ID, stage
from nlp_transfer.manifest import ADAPTER_FILES, MANIFEST_FILE, ONNX_FILES, WHOLE_FILES
from nlp_transfer.reporting.progress import say

OURS = {*ADAPTER_FILES, *WHOLE_FILES, *ONNX_FILES, MANIFEST_FILE, CARD_FILE}
"""A model that is replaced leaves none of these behind."""
PATIENCE, BYTES_A_SECOND = 60.0, 100_000
"""Seconds for each try, and more for large files, at a slow connection's rate."""
MESSAGE = "Upload a model of nlp-transfer"


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
    patience: float = PATIENCE,
) -> str:
    """Send the model in ``folder`` (of a run, or its model) to ``repo`` ("user/name") and give the commit's id.

    Only the files that the manifest lists are sent, with a card, and the pictures of the run where the model still
    stands in it. A new repository is private unless ``public``. ``revision`` is a branch, made if need be;
    ``pull_request`` opens one instead. Run again, it sends what is missing, and nothing if nothing is.

    Raises ConfigError for a missing token, names and rights; ArtifactError for a damaged model, and for secrets in what
    would be sent; HubError where the Hub does not answer for half a minute.
    """
    check_names(repo, pull_request=pull_request, revision=revision)
    with tempfile.TemporaryDirectory() as made:
        files = stage(Path(folder), Path(made), repo, base_model=base_model, licence=licence)
        if dry_run:
            show(files)
            return ""
        if not get_token():
            raise ConfigError("There is no token for the Hub. Log in with `hf auth login`, or set HF_TOKEN.")
        seconds = patience + sum(path.stat().st_size for path in files) / BYTES_A_SECOND
        api = HfApi()

        def attempt() -> str:
            make_room(api, repo, public=public, branch=revision)
            if pull_request:
                return propose(api, repo, files, message)
            return send(api, repo, files, message, revision)

        commit = persistently(f"push to {repo}", attempt, seconds=seconds)
        if tag is not None:
            persistently(f"tag '{tag}' of {repo}", tagging(api, repo, tag, commit), seconds=seconds)
    say(f"{repo} holds it at {commit}.")
    return commit


def check_names(repo: str, *, pull_request: bool, revision: str | None) -> None:
    if not HUB_ID.fullmatch(repo) or repo.count("/") != 1:
        raise ConfigError(f"The repository must be named 'user/name', got '{repo}'.")
    if pull_request and revision is not None:
        raise ConfigError("A pull request goes to the main branch: leave the revision out.")


def show(files: list[Path]) -> None:
    """On standard output: what would be sent, and the card."""
    for path in files:
        print(f"{path.stat().st_size:>12,} bytes  {path.name}")
    print(f"\n{next(path for path in files if path.name == CARD_FILE).read_text('utf-8')}")


def make_room(api: HfApi, repo: str, *, public: bool, branch: str | None) -> None:
    """Raises ConfigError where the repository is open to all and that was not asked for."""
    try:
        info = api.model_info(repo)
    except RepositoryNotFoundError:
        api.create_repo(repo, private=not public, exist_ok=True)
    else:
        if not info.private and not public:
            raise ConfigError(f"{repo} is there already, and public. Pass --public, or name another one.")
    if branch is not None:
        api.create_branch(repo, branch=branch, exist_ok=True)


def send(api: HfApi, repo: str, files: list[Path], message: str, revision: str | None, *, opens: bool = False) -> str:
    """One commit on what is there now, if anything differs. What differs afterwards raises HubError."""
    before = look_at(api, repo, revision)
    if is_complete(files, before.hashes):
        return before.commit
    additions = [CommitOperationAdd(path.name, path) for path in files]
    deletions = [CommitOperationDelete(name) for name in stale(files, before.hashes)]
    made = api.create_commit(
        repo,
        [*additions, *deletions],
        commit_message=message,
        revision=revision,
        parent_commit=before.commit,
        create_pr=opens,
    )
    after = look_at(api, repo, made.pr_revision if opens else made.oid)
    if odd := differing(files, after.hashes):
        raise HubError(f"{repo} holds another {odd[0]} than was sent. Give the same command again.")
    return after.commit


def propose(api: HfApi, repo: str, files: list[Path], message: str) -> str:
    """A pull request, unless one that is open holds the same already, or the main branch does."""
    for reference in api.list_repo_refs(repo, include_pull_requests=True).pull_requests or []:
        proposed = look_at(api, repo, reference.ref)
        if is_complete(files, proposed.hashes):
            return proposed.commit
    return send(api, repo, files, message, None, opens=True)


def is_complete(files: list[Path], theirs: dict[str, str]) -> bool:
    return not differing(files, theirs) and not stale(files, theirs)


def differing(files: list[Path], theirs: dict[str, str]) -> list[str]:
    return [path.name for path in files if path.name not in theirs or not is_same(path, theirs[path.name])]


def stale(files: list[Path], theirs: dict[str, str]) -> list[str]:
    """Of a model that stood there before."""
    return sorted(OURS & theirs.keys() - {path.name for path in files})


def tagging(api: HfApi, repo: str, tag: str, commit: str) -> Callable[[], None]:
    def attempt() -> None:
        tags = {reference.name: reference.target_commit for reference in api.list_repo_refs(repo).tags}
        if tags.get(tag, commit) != commit:
            raise ConfigError(f"{repo} has a tag '{tag}' already, at {tags[tag][:12]}. Name another one.")
        if tag not in tags:
            api.create_tag(repo, tag=tag, revision=commit)

    return attempt
