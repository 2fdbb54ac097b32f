"""What a repository holds, by the hashes that the Hub keeps, compared with files here."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi

from nlp_transfer.fingerprints import hash_files


@dataclass(frozen=True)
class Remote:
    """A repository at one commit."""

    commit: str
    hashes: dict[str, str]
    """By file: sha256 of those in LFS, git's own sha1 of the others."""
    sizes: dict[str, int]
    """In bytes."""


def look_at(api: HfApi, repo: str, revision: str | None) -> Remote:
    info = api.model_info(repo, revision=revision, files_metadata=True)
    files = info.siblings or []
    hashes = {file.rfilename: file.lfs.sha256 if file.lfs else str(file.blob_id) for file in files}
    return Remote(str(info.sha), hashes, {file.rfilename: file.size or 0 for file in files})


def is_same(path: Path, expected: str) -> bool:
    """sha256 has 64 digits, git's sha1 40."""
    return (hash_files([path]) if len(expected) == 64 else git_hash(path)) == expected


def git_hash(path: Path) -> str:
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
