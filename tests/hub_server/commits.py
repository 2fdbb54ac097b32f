"""Endpoints of an upload: which files go to LFS, and the commit itself."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import JSONResponse, Response

from tests.hub_server.api import MODEL
from tests.hub_server.git_repository import Entry, Repository
from tests.hub_server.lfs_store import LFS_THRESHOLD, attributes, lfs_patterns, matches_any, pointer
from tests.hub_server.responses import ApiError
from tests.hub_server.routing import Call, Row
from tests.hub_server.storage import Storage

ATTRIBUTES = ".gitattributes"


def ignore_rules(text: str) -> list[str]:
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def preupload(call: Call) -> Response:
    """For every file: through LFS or within the commit, or not at all, and which content is there already."""
    call.signed_in()
    repository = call.repository(write=not call.asks_for("create_pr"))
    commit, asked = repository.resolve(call.parts["revision"]), call.json("files")
    entries = repository.entries(commit)
    patterns = lfs_patterns(repository.text(entries, ATTRIBUTES))
    given = asked.get("gitIgnore")
    ignored = ignore_rules(repository.text(entries, ".gitignore") if given is None else given)
    rows = []
    for file in asked["files"]:
        path, entry = file["path"], entries.get(file["path"])
        binary = b"\0" in base64.b64decode(file.get("sample", ""))
        large = binary or file["size"] > LFS_THRESHOLD or matches_any(path, patterns)
        row = {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": matches_any(path, ignored)}
        rows.append(row | ({"oid": entry.content_id} if entry and not entry.is_folder else {}))
    return JSONResponse({"files": rows, "commitOid": commit})


@dataclass
class Changes:
    """What a commit does to the files of its parent."""

    storage: Storage
    before: dict[str, Entry]
    additions: dict[str, bytes] = field(default_factory=dict)
    deletions: list[str] = field(default_factory=list)
    large: list[str] = field(default_factory=list)

    def file(self, value: dict[str, Any]) -> None:
        content = base64.b64decode(value["content"], validate=True)
        if len(content) > LFS_THRESHOLD:
            raise ApiError(400, f"{value['path']} is larger than 10 MiB: it has to go through LFS")
        self.additions[value["path"]] = content

    def lfs_file(self, value: dict[str, Any]) -> None:
        size = self.storage.lfs.size(value["oid"])
        if size is None:
            raise ApiError(400, f"LFS pointer pointed to a file that does not exist: {value['path']}")
        if value.get("size") not in (None, size):
            raise ApiError(400, f"The object of {value['path']} has another size")
        self.additions[value["path"]] = pointer(value["oid"], size)
        self.large.append(value["path"])

    def deleted_file(self, value: dict[str, Any]) -> None:
        self._delete([path for path in self._files() if path == value["path"]])

    def deleted_folder(self, value: dict[str, Any]) -> None:
        prefix = value["path"].rstrip("/") + "/"
        self._delete([path for path in self._files() if path.startswith(prefix)])

    def _files(self) -> list[str]:
        return [path for path, entry in self.before.items() if not entry.is_folder]

    def _delete(self, paths: list[str]) -> None:
        if not paths:
            raise ApiError(404, "A file with this name doesn't exist", "EntryNotFound")
        self.deletions += paths

    def track_large_files(self, gitattributes: str) -> None:
        """Files in LFS that no pattern covers get a line of their own."""
        known = self.additions.get(ATTRIBUTES, gitattributes.encode()).decode()
        patterns = lfs_patterns(known)
        if missing := [path for path in self.large if not matches_any(path, patterns)]:
            self.additions[ATTRIBUTES] = (known + attributes(missing)).encode()


OPERATIONS: dict[str, Callable[[Changes, dict[str, Any]], None]] = {
    "file": Changes.file,
    "lfsFile": Changes.lfs_file,
    "deletedFile": Changes.deleted_file,
    "deletedFolder": Changes.deleted_folder,
}


def read_lines(body: bytes) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The header's value and the operations of a commit, one JSON object a line."""
    try:
        lines = [json.loads(line) for line in body.splitlines() if line.strip()]
        if lines[0]["key"] != "header":
            raise ApiError(400, "A commit begins with its header")
        header: dict[str, Any] = lines[0]["value"]
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise ApiError(400, f"Not a commit: {error!r}") from error
    return header, lines[1:]


def read_changes(storage: Storage, before: dict[str, Entry], operations: list[dict[str, Any]]) -> Changes:
    changes = Changes(storage, before)
    for operation in operations:
        try:
            OPERATIONS[operation["key"]](changes, operation["value"])
        except (KeyError, TypeError, binascii.Error) as error:
            raise ApiError(400, f"Not an operation: {error!r}") from error
    return changes


def check_parent(header: dict[str, Any], parent: str) -> None:
    """Somebody else may have committed since the caller looked."""
    expected = header.get("parentCommit")
    if expected and not parent.startswith(expected):
        raise ApiError(412, "A commit has happened since. Please refresh and try again.")


def commit(call: Call) -> Response:
    """All of it or nothing. To a new pull request with ``create_pr``, else to the branch that the path names."""
    opens = call.asks_for("create_pr")
    repository, user = call.repository(write=not opens), call.writer()
    header, operations = read_lines(call.body)
    revision = call.parts["revision"]
    parent = repository.resolve(revision)
    check_parent(header, parent)
    before = repository.entries(parent)
    changes = read_changes(call.storage, before, operations)
    changes.track_large_files(repository.text(before, ATTRIBUTES))
    title, description = header["summary"], header.get("description") or ""
    reference = revision if revision.startswith("refs/pr/") else f"refs/heads/{revision}"
    links = {}
    if opens:
        number = repository.open_pull_request(user.name, title, description, revision)
        reference = f"refs/pr/{number}"
        links = {"pullRequestUrl": f"{call.origin}/{repository.id}/discussions/{number}"}
    made = write(repository, reference, parent, f"{title}\n\n{description}".strip(), changes, user.name)
    url = f"{call.origin}/{repository.id}/commit/{made}"
    return JSONResponse({"success": True, "commitOid": made, "commitUrl": url, "hookOutput": "", **links})


def write(repository: Repository, reference: str, parent: str, message: str, changes: Changes, user: str) -> str:
    gone = [path for path in changes.deletions if path not in changes.additions]
    return repository.commit(reference, parent, message, additions=changes.additions, deletions=gone, user=user)


ROWS: list[Row] = [
    ("POST", MODEL + "/preupload/{revision}", preupload),
    ("POST", MODEL + "/commit/{revision}", commit),
]
