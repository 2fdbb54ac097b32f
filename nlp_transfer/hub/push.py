"""Put a saved model, or a bank of adapters, into a repository on the Hub: all of it in one commit, or nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token
from huggingface_hub.errors import RepositoryNotFoundError

from nlp_transfer.checkpoint_folders import quiet_hub
from nlp_transfer.durable import as_path
from nlp_transfer.errors import ConfigError, HubError, counted
from nlp_transfer.hub.banks import BANK_FILE
from nlp_transfer.hub.bases import licence_stated
from nlp_transfer.hub.content import Remote, is_same, look_at
from nlp_transfer.hub.names import HUB_ID, is_reference
from nlp_transfer.hub.patience import persistently
from nlp_transfer.hub.published import Publication, num_examples, stage
from nlp_transfer.hub.theirs import CARD_FILE, is_card, is_edited, is_picture, pushed_before
from nlp_transfer.manifest import MANIFEST_FILE
from nlp_transfer.reporting.progress import say

PATIENCE, BYTES_A_SECOND = 60.0, 100_000
"""Seconds for each try, and more for large files, at a slow connection's rate."""
WEIGHTS = (".safetensors", ".bin", ".h5", ".msgpack", ".onnx", ".gguf", ".pt", ".pth", ".ckpt")
"""Of models, by the endings of their files."""
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
    tag: str | None


@dataclass(frozen=True)
class Sent:
    """How a push has ended."""

    what: str
    commit: str
    url: str


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
    license: str | None = None,  # noqa: A002 - as the Hub spells it
    base_model: str | None = None,
    replace_card: bool = False,
    examples: bool = True,
    patience: float = PATIENCE,
) -> str:
    """Send the model in ``folder`` (of a run, or its model) to ``repo`` ("user/name") and give the commit's id. A
    folder of several such folders is sent as a bank, which ``AdapterBank.load`` reads.

    Only the files that the manifest lists are sent, with a card, and the pictures of the run where the model still
    stands in it. A new repository is private unless ``public``. ``revision`` is a branch, made if need be;
    ``pull_request`` opens one instead. Run again, it sends what is missing, and nothing if nothing is. A card that was
    edited on the Hub stays, unless ``replace_card``; its licence stays unless another is given. Without ``examples`` no
    text of the data goes with the model.

    Raises ConfigError for a missing token, names and rights, and adapters of several bases; ArtifactError for a damaged
    model, and for secrets in what would be sent; HubError where the Hub does not answer for half a minute.
    """
    check_names(repo, pull_request=pull_request, revision=revision, tag=tag)
    if not dry_run:
        refuse_no_way_there()
    with tempfile.TemporaryDirectory() as made:
        licence = license
        if licence is None and not dry_run:
            licence = persistently(
                f"push to {repo}", lambda: licence_there(HfApi(), repo, replace_card=replace_card), seconds=patience
            )
        publication = Publication(repo, licence, base_model, patience, dry_run, public, examples)
        files = stage(as_path(folder), Path(made), publication)
        told = notes_on(files, licence)
        if dry_run:
            show(files)
            say(f"Nothing was sent. {told}")
            return ""
        seconds = patience + sum(path.stat().st_size for path in files.values()) / BYTES_A_SECOND
        sending = Sending(HfApi(), repo, files, message, replace_card, tag)

        def attempt() -> Sent:
            make_room(sending, public=public, branch=revision)
            refuse_taken_tag(sending)
            return propose(sending) if pull_request else send(sending, revision)

        with quiet_hub():
            sent = persistently(f"push to {repo}", attempt, seconds=seconds)
            if tag is not None:
                persistently(f"tag '{tag}' of {repo}", lambda: put_tag(sending, tag, sent.commit), seconds=seconds)
    say(f"{sent.what}: {sent.url} {told}")
    return sent.commit


def notes_on(files: dict[str, Path], licence: str | None) -> str:
    """What a person may not have thought of."""
    number = num_examples(files)
    told = f"{counted(number, 'text')} of the data among the examples (--no-examples: none)." if number else ""
    return told if licence else f"{told} No licence is stated (--license).".strip()


def licence_there(api: HfApi, repo: str, *, replace_card: bool) -> str | None:
    """As the card states it that is there already. Raises ConfigError for one that a new card could not keep."""
    try:
        card = api.model_info(repo).card_data
    except RepositoryNotFoundError:
        return None
    stated, kept = getattr(card, "license", None), licence_stated(card)
    if replace_card and stated is not None and stated != kept:
        raise ConfigError(
            f"The card of {repo} states the licence {stated!r}, which --replace-card would lose. Pass --license."
        )
    return kept


def check_names(repo: str, *, pull_request: bool, revision: str | None, tag: str | None) -> None:
    if not HUB_ID.fullmatch(repo) or repo.count("/") != 1:
        raise ConfigError(f"The repository must be named 'user/name', got '{repo}'.")
    if pull_request and (revision is not None or tag is not None):
        raise ConfigError("A pull request goes to the main branch, and is no place for a tag: leave both out.")
    for name in (revision, tag):
        if name is not None and not is_reference(name):
            raise ConfigError(f"'{name}' cannot be the name of a branch or tag. Take letters, digits, and _ . - /.")


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
            raise ConfigError(f"{to.repo} is public: everybody sees what is pushed. Pass --public if that is meant.")
        if info.private and public:
            say(f"{to.repo} is private and stays so. Its page on the Hub has a setting for that.")
    if branch is not None:
        to.api.create_branch(to.repo, branch=branch, exist_ok=True)


def send(to: Sending, revision: str | None, *, opens: bool = False) -> Sent:
    """One commit on what is there now, if anything differs. What differs afterwards raises HubError."""
    before = look_at(to.api, to.repo, revision)
    refuse_other_model(to, before)
    files = wanted(to, before)
    unwanted = stale(to, before)
    if not differing(files, before.hashes) and not unwanted:
        return Sent("It is there already, and nothing was sent", before.commit, url(to, f"tree/{before.commit}"))
    made = to.api.create_commit(
        to.repo,
        [
            *(CommitOperationAdd(name, path) for name, path in files.items()),
            *(CommitOperationDelete(name) for name in unwanted),
        ],
        commit_message=to.message,
        revision=revision,
        parent_commit=before.commit,
        create_pr=opens,
    )
    after = look_at(to.api, to.repo, made.pr_revision if opens else made.oid)
    if odd := differing(files, after.hashes):
        raise HubError(f"{to.repo} holds another {odd[0]} than was sent. Give the same command again.")
    if opens:
        return Sent(f"Pull request {made.pr_num} is open", after.commit, url(to, f"discussions/{made.pr_num}"))
    return Sent(f"Sent to {to.repo}", after.commit, url(to, f"tree/{after.commit}"))


def url(to: Sending, place: str) -> str:
    return f"{constants.ENDPOINT}/{to.repo}/{place}"


def refuse_other_model(to: Sending, there: Remote) -> None:
    """A base, say, of the same user: transformers would put an adapter that lies beside it on top of it."""
    weights = [name for name in there.hashes if "/" not in name and name.endswith(WEIGHTS)]
    if weights and not {MANIFEST_FILE, BANK_FILE} & there.hashes.keys():
        raise ConfigError(f"{to.repo} holds {weights[0]} of another kind of model. Name a repository of its own.")


def propose(to: Sending) -> Sent:
    """A pull request, unless one that is open holds the same already, or the main branch does."""
    files = wanted(to, look_at(to.api, to.repo, None))
    for opened in to.api.get_repo_discussions(to.repo, discussion_type="pull_request", discussion_status="open"):
        proposed = look_at(to.api, to.repo, opened.git_reference)
        if not differing(files, proposed.hashes):
            return Sent(
                f"Pull request {opened.num} holds it already", proposed.commit, url(to, f"discussions/{opened.num}")
            )
    return send(to, None, opens=True)


def wanted(to: Sending, there: Remote) -> dict[str, Path]:
    """All files, but for cards that are not ours to replace: those a person has worked on, and, if nothing else
    differs, those of a run where the model was pushed without its run.
    """
    cards = [name for name in to.files if is_card(name) and name in there.hashes]
    differ = [name for name in cards if not is_same(to.files[name], there.hashes[name])]
    if to.replace_card or not differ:
        return to.files
    kept = [name for name in differ if is_edited(to.api, to.repo, there, name)]
    if kept:
        say(
            f"{kept[0]} of {to.repo} was written or edited by a person and stays as it is, its licence too. "
            "--replace-card replaces it."
        )
    if has_pictures(there.hashes) and not has_pictures(to.files) and not other_model(to, there):
        say(f"{to.repo} holds this model already, with the card and pictures of its run, which stay.")
        kept = cards
    return {name: path for name, path in to.files.items() if name not in kept}


def has_pictures(names: Iterable[str]) -> bool:
    return any(map(is_picture, names))


def other_model(to: Sending, there: Remote) -> bool:
    """Whether more differs than cards."""
    return bool(differing({name: path for name, path in to.files.items() if not is_card(name)}, there.hashes))


def differing(files: dict[str, Path], theirs: dict[str, str]) -> list[str]:
    return [name for name, path in files.items() if name not in theirs or not is_same(path, theirs[name])]


def stale(to: Sending, there: Remote) -> list[str]:
    """What an earlier push has put there and this one does not."""
    gone = sorted(pushed_before(to.api, to.repo, there) - to.files.keys())
    return [name for name in gone if not is_picture(name)] if gone and not other_model(to, there) else gone


def refuse_taken_tag(to: Sending) -> None:
    """Before anything is sent: a tag of that name may only stand at this very model."""
    at = tags_of(to).get(to.tag or "")
    if at is not None and other_model(to, look_at(to.api, to.repo, at)):
        raise ConfigError(f"{to.repo} has a tag '{to.tag}' already, at {at[:12]}. Name another one.")


def put_tag(to: Sending, tag: str, commit: str) -> None:
    if tag not in tags_of(to):
        to.api.create_tag(to.repo, tag=tag, revision=commit)


def tags_of(to: Sending) -> dict[str, str]:
    return {reference.name: reference.target_commit for reference in to.api.list_repo_refs(to.repo).tags}
