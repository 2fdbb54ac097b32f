"""What a Hub keeps: users with their tokens, repositories, large files, chunks, and the tickets of signed URLs."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.hub_server.chunk_store import ChunkStore
from tests.hub_server.git_repository import Entry, Repository
from tests.hub_server.lfs_store import LfsStore
from tests.hub_server.responses import ApiError

REPO_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)


@dataclass(frozen=True)
class User:
    name: str
    role: str
    organizations: tuple[str, ...] = ()

    def belongs_to(self, owner: str) -> bool:
        return owner == self.name or owner in self.organizations

    def may_write(self, owner: str) -> bool:
        return self.role == "write" and self.belongs_to(owner)


USERS: Mapping[str, User] = {
    "hf_alice_write": User("alice", "write", ("lab",)),
    "hf_alice_read": User("alice", "read", ("lab",)),
    "hf_bob_write": User("bob", "write"),
}
"""By token."""


@dataclass(frozen=True)
class Ticket:
    """What the bearer of a signed URL or of a Xet token may do: "upload" or "download" an object, "read" or "write"."""

    purpose: str
    sha256: str = ""
    size: int = 0


class Storage:
    def __init__(self, root: Path, users: Mapping[str, User], *, xet: bool) -> None:
        self.root = root
        self.users = users
        self.xet = xet
        self.lock = threading.RLock()
        self.lfs = LfsStore(root / "lfs")
        self.chunks = ChunkStore(root / "xorbs")
        self._tickets: dict[str, Ticket] = {}
        self._corrupted: set[str] = set()

    def repository(self, repo_id: str) -> Repository:
        if not REPO_ID.fullmatch(repo_id):
            raise ApiError(400, f"Not the id of a repository: {repo_id}")
        owner, name = repo_id.split("/")
        return Repository(self.root / "git", owner, name)

    def repositories(self) -> list[Repository]:
        folders = sorted((self.root / "git").glob("*/*.git"))
        return [self.repository(f"{folder.parent.name}/{folder.name.removesuffix('.git')}") for folder in folders]

    def issue(self, ticket: Ticket) -> str:
        token = secrets.token_urlsafe(16)
        self._tickets[token] = ticket
        return token

    def ticket(self, token: str, *purposes: str) -> Ticket:
        ticket = self._tickets.get(token)
        if ticket is None or ticket.purpose not in purposes:
            raise ApiError(403, "This URL or token is not for that")
        return ticket

    def xet_hash(self, entry: Entry) -> str | None:
        return self.chunks.hash_of.get(entry.sha256) if self.xet and entry.sha256 else None

    def content(self, repository: Repository, entry: Entry) -> bytes:
        return self.lfs.read(entry.sha256) if entry.sha256 else repository.blob(entry.oid)

    def corrupt(self, entry: Entry) -> None:
        """One byte is served wrong from now on, as a git blob, LFS object and xorb. What is stored stays as it is."""
        self._corrupted.add(entry.content_id)
        if entry.sha256 in self.chunks.hash_of:
            self.chunks.corrupt(self.chunks.hash_of[entry.sha256])

    def served(self, content_id: str, content: bytes) -> bytes:
        if content_id not in self._corrupted:
            return content
        middle = len(content) // 2
        return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
