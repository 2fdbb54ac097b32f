"""Endpoints about users, repositories, their contents and references, and discussions."""

from __future__ import annotations

import hashlib
import re
from typing import Any
from urllib.parse import parse_qs

import yaml
from starlette.responses import JSONResponse, Response

from tests.hub_server.card_rules import problems
from tests.hub_server.git_repository import Entry, Repository
from tests.hub_server.responses import ApiError
from tests.hub_server.routing import Call, Row

FRONT_MATTER = re.compile(r"\s*---\n(.*?)\n---", re.DOTALL)


def whoami(call: Call) -> Response:
    user = call.signed_in()
    organizations = [{"type": "org", "name": name, "fullname": name} for name in user.organizations]
    return JSONResponse(
        {
            "type": "user",
            "id": hashlib.sha256(user.name.encode()).hexdigest()[:24],
            "name": user.name,
            "fullname": user.name,
            "email": f"{user.name}@hub.test",
            "emailVerified": True,
            "isPro": False,
            "canPay": False,
            "avatarUrl": "",
            "orgs": organizations,
            "auth": {"type": "access_token", "accessToken": {"displayName": "test", "role": user.role}},
        }
    )


def nothing(call: Call) -> Response:
    """For telemetry, and for what needs no answer."""
    return JSONResponse({})


def agent_harnesses(call: Call) -> Response:
    """An object: a list would make every call of the client fail."""
    return JSONResponse({"standardEnvVars": [], "harnesses": {}})


def _named(call: Call) -> Repository:
    """The repository that the body names, if it may be made or removed by the caller."""
    user, asked = call.signed_in(), call.json("name")
    owner = asked.get("organization") or user.name
    if asked.get("type") not in (None, "model"):
        raise ApiError(400, "Only models are kept here")
    if not user.may_write(owner):
        raise ApiError(403, f'You don\'t have the rights to create a model under the namespace "{owner}"')
    return call.storage.repository(f"{owner}/{asked['name']}")


def create_repository(call: Call) -> Response:
    """The client reads the URL in the refusal too, when an existing repository is fine with it."""
    repository, asked = _named(call), call.json()
    url = f"{call.origin}/{repository.id}"
    if repository.exists:
        message = "You already created this model repo"
        return JSONResponse({"error": message, "url": url}, 409, {"X-Error-Message": message})
    private = asked.get("visibility") == "private" or bool(asked.get("private"))
    repository.create(call.signed_in().name, private=private)
    return JSONResponse({"url": url, "name": repository.id, "id": repository.details["_id"]})


def delete_repository(call: Call) -> Response:
    repository = _named(call)
    if not repository.exists:
        raise ApiError(404, "Repository not found", "RepoNotFound")
    repository.delete()
    return JSONResponse({})


def update_settings(call: Call) -> Response:
    repository, asked = call.repository(write=True), call.json()
    if "visibility" in asked or "private" in asked:
        repository.update(private=asked.get("visibility") == "private" or bool(asked.get("private")))
    if "gated" in asked:
        repository.update(gated=asked["gated"])
    return JSONResponse({"private": repository.details["private"]})


def validate_yaml(call: Call) -> Response:
    """Of a model card: asked for with every README.md, and the answer must be JSON."""
    match = FRONT_MATTER.match(call.json("content")["content"])
    try:
        metadata = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError as error:
        return JSONResponse({"errors": [{"message": str(error)}], "warnings": []}, 400)
    if not metadata:
        return JSONResponse({"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]})
    errors = [{"message": line} for line in problems(metadata)]
    return JSONResponse({"errors": errors, "warnings": []}, 400 if errors else 200)


def _card(repository: Repository, entries: dict[str, Entry]) -> dict[str, Any]:
    match = FRONT_MATTER.match(repository.text(entries, "README.md"))
    try:
        loaded = yaml.safe_load(match[1]) if match else {}
    except yaml.YAMLError:
        return {}
    return loaded if isinstance(loaded, dict) else {}


def _sibling(entry: Entry, *, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": entry.path}
    row: dict[str, Any] = {"rfilename": entry.path, "size": entry.size, "blobId": entry.oid}
    if entry.sha256:
        row["lfs"] = {"sha256": entry.sha256, "size": entry.size, "pointerSize": entry.pointer_size}
    return row


def model_info(call: Call) -> Response:
    repository = call.repository()
    commit = repository.resolve(call.parts.get("revision", "main"))
    entries, details = repository.entries(commit), repository.details
    card = _card(repository, entries)
    files = [entry for entry in entries.values() if not entry.is_folder]
    return JSONResponse(
        {
            "_id": details["_id"],
            "id": repository.id,
            "modelId": repository.id,
            "author": repository.owner,
            "sha": commit,
            "lastModified": repository.history(commit)[0]["date"],
            "createdAt": details["createdAt"],
            "private": details["private"],
            "gated": details["gated"],
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [*(card.get("tags") or []), *filter(None, [card.get("library_name")])],
            "cardData": card,
            "library_name": card.get("library_name"),
            "pipeline_tag": card.get("pipeline_tag"),
            "siblings": [_sibling(entry, blobs=call.asks_for("blobs")) for entry in files],
            "spaces": [],
            "usedStorage": 0,
        }
    )


def _tree_row(call: Call, entry: Entry) -> dict[str, Any]:
    kind = "directory" if entry.is_folder else "file"
    row: dict[str, Any] = {"type": kind, "oid": entry.oid, "size": entry.size, "path": entry.path}
    if entry.sha256:
        row["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": entry.pointer_size}
    if xet_hash := call.storage.xet_hash(entry):
        row["xetHash"] = xet_hash
    return row


def _rows(call: Call, repository: Repository, commit: str, entries: list[Entry]) -> Response:
    rows = [_tree_row(call, entry) for entry in entries]
    if call.asks_for("expand"):
        for row in rows:
            last = repository.history(commit, row["path"])[0]
            row["lastCommit"] = {name: last[name] for name in ("id", "title", "date")}
    return JSONResponse(rows)


def tree(call: Call) -> Response:
    repository, folder = call.repository(), call.parts.get("folder", "").strip("/")
    commit = repository.resolve(call.parts["revision"])
    entries = repository.entries(commit)
    if folder and (folder not in entries or not entries[folder].is_folder):
        raise ApiError(404, f"{folder} does not exist", "EntryNotFound")
    prefix = f"{folder}/" if folder else ""
    below = [entry for entry in entries.values() if entry.path.startswith(prefix)]
    if not call.asks_for("recursive"):
        below = [entry for entry in below if "/" not in entry.path.removeprefix(prefix)]
    return _rows(call, repository, commit, below)


def paths_info(call: Call) -> Response:
    repository = call.repository()
    commit = repository.resolve(call.parts["revision"])
    entries = repository.entries(commit)
    as_json = "json" in call.request.headers.get("content-type", "")
    paths = call.json("paths")["paths"] if as_json else parse_qs(call.body.decode()).get("paths", [])
    return _rows(call, repository, commit, [entries[path] for path in paths if path in entries])


def references(call: Call) -> Response:
    found = call.repository().references()
    if not call.asks_for("include_prs"):
        del found["pullRequests"]
    return JSONResponse({**found, "converts": []})


def commits(call: Call) -> Response:
    found = call.repository().history(call.parts["revision"])
    return JSONResponse(found, headers={"X-Total-Count": str(len(found))})


def create_branch(call: Call) -> Response:
    repository, reference = call.repository(write=True), f"refs/heads/{call.parts['branch']}"
    if repository.has_reference(reference):
        raise ApiError(409, f"Reference already exists: {reference}")
    repository.point(reference, repository.resolve(call.json().get("startingPoint") or "main"))
    return JSONResponse({})


def delete_branch(call: Call) -> Response:
    repository = call.repository(write=True)
    if call.parts["branch"] == "main":
        raise ApiError(403, "Cannot delete refs/heads/main")
    repository.remove(f"refs/heads/{call.parts['branch']}")
    return JSONResponse({})


def create_tag(call: Call) -> Response:
    repository, reference = call.repository(write=True), f"refs/tags/{call.json('tag')['tag']}"
    if repository.has_reference(reference):
        raise ApiError(409, f"Tag reference exists already: {reference}")
    repository.point(reference, repository.resolve(call.parts["revision"]))
    return JSONResponse({})


def delete_tag(call: Call) -> Response:
    call.repository(write=True).remove(f"refs/tags/{call.parts['revision']}")
    return JSONResponse({})


def open_discussion(call: Call) -> Response:
    """Whoever sees a repository may propose changes to it."""
    repository, user, asked = call.repository(), call.signed_in(), call.json("title")
    number = repository.open_pull_request(user.name, asked["title"], asked.get("description") or "")
    return JSONResponse({"num": number, "pullRequest": True})


def discussions(call: Call) -> Response:
    """All on one page."""
    repository = call.repository()
    is_open = call.request.query_params.get("status") == "open"
    found = [e for e in repository.details["discussions"] if not is_open or e["status"] in ("draft", "open")]
    listed = [_described(repository, entry) for entry in found]
    return JSONResponse({"discussions": listed, "count": len(listed), "start": 0})


def discussion(call: Call) -> Response:
    repository = call.repository()
    found = _described(repository, repository.discussion(int(call.parts["number"])))
    more: dict[str, Any] = {"events": [], "filesWithConflicts": [], "diff": ""}
    return JSONResponse(found | more | {"changes": {"base": "refs/heads/main"}})


def _described(repository: Repository, entry: dict[str, Any]) -> dict[str, Any]:
    return {
        **{name: entry[name] for name in ("num", "title", "status", "createdAt")},
        "author": {"name": entry["author"], "type": "user"},
        "isPullRequest": True,
        "repo": {"name": repository.id, "type": "model"},
        "repoOwner": {"name": repository.owner, "type": "user"},
    }


def may_read(call: Call) -> Response:
    call.repository()
    return JSONResponse({})


def may_write(call: Call) -> Response:
    call.repository(write=True)
    return JSONResponse({})


MODEL = "/api/models/{owner}/{name}"
ROWS: list[Row] = [
    ("GET", "/api/whoami-v2", whoami),
    ("GET", "/api/agent-harnesses", agent_harnesses),
    ("POST", "/v1/telemetry", nothing),
    ("POST", "/api/repos/create", create_repository),
    ("DELETE", "/api/repos/delete", delete_repository),
    ("POST", "/api/validate-yaml", validate_yaml),
    ("GET", MODEL, model_info),
    ("PUT", MODEL + "/settings", update_settings),
    ("GET", MODEL + "/auth-check", may_read),
    ("GET", MODEL + "/auth-check/write", may_write),
    ("GET", MODEL + "/revision/{revision}", model_info),
    ("GET", MODEL + "/tree/{revision}", tree),
    ("GET", MODEL + "/tree/{revision}/{folder*}", tree),
    ("POST", MODEL + "/paths-info/{revision}", paths_info),
    ("GET", MODEL + "/refs", references),
    ("GET", MODEL + "/commits/{revision}", commits),
    ("POST", MODEL + "/branch/{branch}", create_branch),
    ("DELETE", MODEL + "/branch/{branch}", delete_branch),
    ("POST", MODEL + "/tag/{revision}", create_tag),
    ("DELETE", MODEL + "/tag/{revision}", delete_tag),
    ("POST", MODEL + "/discussions", open_discussion),
    ("GET", MODEL + "/discussions", discussions),
    ("GET", MODEL + "/discussions/{number}", discussion),
]
