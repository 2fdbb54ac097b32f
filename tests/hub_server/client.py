"""What the tests of the server let huggingface_hub do; run as ``python -m tests.hub_server.client WORK FOLDER``."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import HfHubHTTPError

MODEL, PRIVATE = "alice/model", "alice/private"


def refusal(call: Callable[..., object], *args: object, **options: object) -> str:
    """Class of the error that the call ends with, and the status behind it."""
    try:
        call(*args, **options)
    except (HfHubHTTPError, ValueError) as error:
        response = getattr(error, "response", None)
        return f"{type(error).__name__} {response.status_code if response is not None else ''}".strip()
    return "no error"


def round_trip(source: str, destination: str) -> dict[str, Any]:
    """Upload a folder, do it again, and download it."""
    api = HfApi()
    api.create_repo(MODEL)
    first = api.upload_folder(repo_id=MODEL, folder_path=source)
    again = api.upload_folder(repo_id=MODEL, folder_path=source)
    snapshot_download(MODEL, local_dir=destination)
    info = api.model_info(MODEL, files_metadata=True)
    [weights] = [file for file in info.siblings or [] if file.rfilename == "adapter_model.safetensors"]
    return {
        "user": api.whoami()["name"],
        "commits": [first.oid, again.oid, info.sha],
        "library": info.library_name,
        "sha256": weights.lfs.sha256 if weights.lfs else None,
    }


def access(folder: str) -> dict[str, Any]:
    """Who may do what."""
    owner, reader, other = HfApi(), HfApi(token="hf_alice_read"), HfApi(token="hf_bob_write")
    stranger, unknown = HfApi(token=False), HfApi(token="hf_nobody")
    file: dict[str, Any] = {"path_or_fileobj": b"text", "path_in_repo": "notes.txt"}
    owner.create_repo(PRIVATE, private=True)
    owner.create_repo(MODEL)
    owner.upload_file(**file, repo_id=PRIVATE)
    found: dict[str, Any] = {
        "stranger looks": refusal(stranger.model_info, PRIVATE),
        "stranger downloads": refusal(snapshot_download, PRIVATE, token=False, local_dir=folder),
        "other looks": refusal(other.model_info, PRIVATE),
        "unknown token": refusal(unknown.model_info, MODEL),
        "reader looks": refusal(reader.model_info, PRIVATE),
        "reader uploads": refusal(reader.upload_file, **file, repo_id=MODEL),
        "reader creates": refusal(reader.create_repo, "alice/more"),
        "other uploads": refusal(other.upload_file, **file, repo_id=MODEL),
        "other proposes": refusal(other.upload_file, **file, repo_id=MODEL, create_pr=True),
        "other checks writing": refusal(other.auth_check, MODEL, write=True),
        "member creates": refusal(owner.create_repo, "lab/model"),
        "create again": refusal(owner.create_repo, MODEL),
        "create again, fine": refusal(owner.create_repo, MODEL, exist_ok=True),
    }
    owner.update_repo_settings(MODEL, private=True)
    found["made private"] = refusal(stranger.auth_check, MODEL)
    owner.delete_repo(MODEL)
    found["deleted"] = refusal(owner.model_info, MODEL)
    return found


def references(source: str) -> dict[str, Any]:
    """Branches, tags and pull requests, and what is refused about them."""
    api = HfApi()
    api.create_repo(MODEL)
    start = api.model_info(MODEL).sha
    api.create_branch(MODEL, branch="try/one")
    on_branch = api.upload_file(path_or_fileobj=b"one", path_in_repo="one.txt", repo_id=MODEL, revision="try/one")
    api.create_tag(MODEL, tag="v1", revision="try/one")
    proposed = api.upload_folder(repo_id=MODEL, folder_path=source, create_pr=True, commit_message="Proposed")
    api.upload_file(path_or_fileobj=b"main", path_in_repo="main.txt", repo_id=MODEL)
    late = [CommitOperationAdd("late.txt", b"late")]
    broken = {"path_or_fileobj": b"---\na: [\n---\n", "path_in_repo": "README.md", "repo_id": MODEL}
    names = api.list_repo_refs(MODEL, include_pull_requests=True)
    pull_requests = names.pull_requests or []
    return {
        "branches": {branch.name: branch.target_commit == on_branch.oid for branch in names.branches},
        "tags": {tag.name: tag.target_commit == on_branch.oid for tag in names.tags},
        "pull requests": {request.ref: request.target_commit == proposed.oid for request in pull_requests},
        "details": api.get_discussion_details(MODEL, proposed.pr_num or 0).title,
        "tagged": Path(hf_hub_download(MODEL, "one.txt", revision="v1")).read_text(),
        "proposed": sorted(api.list_repo_files(MODEL, revision=proposed.pr_revision)),
        "main": sorted(entry.path for entry in api.list_repo_tree(MODEL, expand=True)),
        "paths": [entry.path for entry in api.get_paths_info(MODEL, ["main.txt", "none"])],
        "titles": [commit.title for commit in api.list_repo_commits(MODEL)],
        "missing file": refusal(hf_hub_download, MODEL, "one.txt"),
        "missing revision": refusal(hf_hub_download, MODEL, "one.txt", revision="none"),
        "same branch": refusal(api.create_branch, MODEL, branch="try/one"),
        "stale parent": refusal(api.create_commit, MODEL, late, commit_message="Late", parent_commit=start),
        "broken card": refusal(api.upload_file, **broken),
    }


def upload(source: str) -> dict[str, Any]:
    api = HfApi()
    api.create_repo(MODEL, exist_ok=True)
    return {"upload": refusal(api.upload_folder, repo_id=MODEL, folder_path=source)}


def download(destination: str) -> dict[str, Any]:
    """Hashes of what arrives."""
    folder = Path(snapshot_download(MODEL, local_dir=destination))
    files = [path for path in folder.iterdir() if path.is_file()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


if __name__ == "__main__":
    work = {function.__name__: function for function in (round_trip, access, references, upload, download)}
    print(json.dumps(work[sys.argv[1]](*sys.argv[2:])))
