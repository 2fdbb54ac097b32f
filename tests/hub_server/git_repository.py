"""One repository of the Hub: a bare git repository on disk, and beside it what git does not know (visibility, PRs)."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.hub_server.lfs_store import LFS_PATTERNS, attributes, read_pointer
from tests.hub_server.responses import ApiError, timestamp

COMMIT_ID = re.compile(r"[0-9a-f]{40}")
NO_COMMIT = "0" * 40
POINTER_SIZES = range(100, 200)
REFERENCES = {"branches": "refs/heads/", "tags": "refs/tags/", "pullRequests": "refs/pr/"}


def run_git(
    folder: Path, *words: str, content: bytes = b"", variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """A git command on a bare repository, untouched by the configuration of the machine and of a surrounding git."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    own = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, **(variables or {})}
    command = ["git", "--git-dir", str(folder), *words]
    return subprocess.run(command, check=False, input=content, capture_output=True, env=inherited | own)


def git(folder: Path, *words: str, content: bytes = b"", variables: Mapping[str, str] | None = None) -> bytes:
    """What the command prints; it has to succeed."""
    done = run_git(folder, *words, content=content, variables=variables)
    if done.returncode:
        raise RuntimeError(f"git {' '.join(words)}: {done.stderr.decode()}")
    return done.stdout


@dataclass(frozen=True)
class Entry:
    """A file or folder of a commit; of a file in LFS also the hash and size of its content."""

    path: str
    oid: str
    size: int
    is_folder: bool = False
    sha256: str | None = None
    pointer_size: int = 0

    @property
    def content_id(self) -> str:
        """What names the content: its sha256 in LFS, else git's blob id."""
        return self.sha256 or self.oid


class Repository:
    def __init__(self, root: Path, owner: str, name: str) -> None:
        self.owner = owner
        self.id = f"{owner}/{name}"
        self.folder = root / owner / f"{name}.git"
        self._details = self.folder / "hub.json"

    @property
    def exists(self) -> bool:
        return self._details.exists()

    @property
    def details(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self._details.read_text("utf-8"))
        return loaded

    def update(self, **details: object) -> None:
        known = self.details if self.exists else {}
        self._details.write_text(json.dumps(known | details), "utf-8")

    def create(self, user: str, *, private: bool) -> None:
        """A first commit with .gitattributes, as on the Hub: it is what sends *.safetensors to LFS, however small."""
        self.folder.mkdir(parents=True)
        git(self.folder, "init", "--quiet", "--bare", "--initial-branch", "main")
        self.update(_id=secrets.token_hex(12), private=private, gated=False, createdAt=timestamp(), discussions=[])
        initial = {".gitattributes": attributes(LFS_PATTERNS.split()).encode()}
        self.commit("refs/heads/main", None, "initial commit", additions=initial, user=user)

    def delete(self) -> None:
        shutil.rmtree(self.folder)

    def has_reference(self, reference: str) -> bool:
        return run_git(self.folder, "rev-parse", "--quiet", "--verify", reference).returncode == 0

    def resolve(self, revision: str) -> str:
        """The commit that a branch, a tag, a full reference or a commit id stands for."""
        candidates = [f"refs/heads/{revision}", f"refs/tags/{revision}"]
        if COMMIT_ID.fullmatch(revision) or revision.startswith("refs/"):
            candidates = [revision]
        for candidate in candidates:
            done = run_git(self.folder, "rev-parse", "--quiet", "--verify", f"{candidate}^{{commit}}")
            if done.returncode == 0:
                return done.stdout.decode().strip()
        raise ApiError(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def entries(self, commit: str) -> dict[str, Entry]:
        """Files and folders of a commit by path."""
        listing = git(self.folder, "ls-tree", "-r", "-l", "-t", "-z", commit)
        found = (self._entry(row) for row in listing.split(b"\0") if row)
        return {entry.path: entry for entry in found}

    def _entry(self, row: bytes) -> Entry:
        columns, path = row.decode().split("\t", 1)
        _, kind, oid, size = columns.split()
        if kind == "tree":
            return Entry(path, oid, 0, is_folder=True)
        pointer = read_pointer(self.blob(oid)) if int(size) in POINTER_SIZES else None
        if pointer is None:
            return Entry(path, oid, int(size))
        sha256, content_size = pointer
        return Entry(path, oid, content_size, sha256=sha256, pointer_size=int(size))

    def file(self, commit: str, path: str) -> Entry:
        """The client takes a missing file for a missing repository unless the code says otherwise."""
        entry = self.entries(commit).get(path)
        if entry is None or entry.is_folder:
            raise ApiError(404, "Entry not found", "EntryNotFound", {"X-Repo-Commit": commit})
        return entry

    def blob(self, oid: str) -> bytes:
        return git(self.folder, "cat-file", "blob", oid)

    def text(self, entries: Mapping[str, Entry], path: str) -> str:
        """The text of a small file, empty if there is none."""
        return self.blob(entries[path].oid).decode() if path in entries else ""

    def commit(
        self,
        reference: str,
        parent: str | None,
        message: str,
        *,
        additions: Mapping[str, bytes],
        deletions: Iterable[str] = (),
        user: str,
    ) -> str:
        """Files written and removed in one commit on top of the parent; the reference moves to it."""
        index = self.folder / f"index-{secrets.token_hex(6)}"
        variables = {"GIT_INDEX_FILE": str(index)}
        for person in ("AUTHOR", "COMMITTER"):
            variables |= {f"GIT_{person}_NAME": user, f"GIT_{person}_EMAIL": f"{user}@users.noreply.hub.test"}
        try:
            tree = self._write_tree(parent, additions, deletions, variables)
        finally:
            index.unlink(missing_ok=True)
        parents = ["-p", parent] if parent else []
        made = git(self.folder, "commit-tree", tree, *parents, content=message.encode(), variables=variables)
        commit = made.decode().strip()
        git(self.folder, "update-ref", reference, commit, parent or NO_COMMIT)
        return commit

    def _write_tree(
        self, parent: str | None, additions: Mapping[str, bytes], deletions: Iterable[str], variables: dict[str, str]
    ) -> str:
        if parent:
            git(self.folder, "read-tree", parent, variables=variables)
        rows = [f"0 {NO_COMMIT}\t{path}" for path in deletions]
        for path, content in additions.items():
            oid = git(self.folder, "hash-object", "-w", "--stdin", content=content).decode().strip()
            rows.append(f"100644 {oid}\t{path}")
        listing = "".join(f"{row}\0" for row in rows).encode()
        git(self.folder, "update-index", "-z", "--index-info", content=listing, variables=variables)
        return git(self.folder, "write-tree", variables=variables).decode().strip()

    def point(self, reference: str, commit: str) -> None:
        git(self.folder, "update-ref", reference, commit)

    def remove(self, reference: str) -> None:
        if not self.has_reference(reference):
            raise ApiError(404, f"Reference does not exist: {reference}", "RevisionNotFound")
        git(self.folder, "update-ref", "-d", reference)

    def references(self) -> dict[str, list[dict[str, str]]]:
        """Branches, tags and pull requests. The name of a pull request is the whole reference."""
        found: dict[str, list[dict[str, str]]] = {kind: [] for kind in REFERENCES}
        for line in git(self.folder, "for-each-ref", "--format=%(refname) %(objectname)").decode().splitlines():
            reference, commit = line.split()
            kind, prefix = next(item for item in REFERENCES.items() if reference.startswith(item[1]))
            name = reference if kind == "pullRequests" else reference.removeprefix(prefix)
            found[kind].append({"name": name, "ref": reference, "targetCommit": commit})
        return found

    def history(self, revision: str, *path: str) -> list[dict[str, Any]]:
        """Commits of a revision, newest first; with a path those that changed it."""
        fields = "%H%x00%an%x00%ct%x00%s%x00%b%x01"
        log = git(self.folder, "log", f"--format={fields}", self.resolve(revision), "--", *path).decode()
        rows = [row.strip("\n").split("\0") for row in log.split("\x01") if row.strip()]
        return [
            {
                "id": commit,
                "title": title,
                "message": message.strip(),
                "authors": [{"user": author, "avatar": ""}],
                "date": timestamp(int(seconds)),
            }
            for commit, author, seconds, title, message in rows
        ]

    def open_pull_request(self, user: str, title: str, description: str, revision: str = "main") -> int:
        """Gives its number; its commits go to refs/pr/NUMBER."""
        discussions = self.details["discussions"]
        number = len(discussions) + 1
        opened = {"num": number, "title": title, "description": description, "author": user, "status": "draft"}
        self.update(discussions=[*discussions, opened | {"createdAt": timestamp()}])
        self.point(f"refs/pr/{number}", self.resolve(revision))
        return number

    def discussion(self, number: int) -> dict[str, Any]:
        for found in self.details["discussions"]:
            if found["num"] == number:
                return dict(found)
        raise ApiError(404, "Discussion not found")
