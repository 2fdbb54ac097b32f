"""Large files by their sha256, their pointers in git, and the patterns that say which files are large."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path

from tests.hub_server.responses import ApiError

LFS_THRESHOLD = 10 * 1024 * 1024
LFS_PATTERNS = (
    "*.7z *.arrow *.bin *.bz2 *.ckpt *.ftz *.gz *.h5 *.joblib *.lfs.* *.mlmodel *.model *.msgpack *.npy *.npz *.onnx "
    "*.ot *.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar *.safetensors saved_model/**/* *.tar.* *.tar *.tflite *.tgz "
    "*.wasm *.xz *.zip *.zst *tfevents*"
)
"""Those of a new repository on the Hub."""
POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (\d+)\n")
SHA256 = re.compile(r"[0-9a-f]{64}")


def pointer(sha256: str, size: int) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def read_pointer(content: bytes) -> tuple[str, int] | None:
    """Hash and size, if the content is a pointer."""
    match = POINTER.fullmatch(content)
    return (match[1].decode(), int(match[2])) if match else None


def attributes(patterns: Iterable[str]) -> str:
    return "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in patterns)


def lfs_patterns(gitattributes: str) -> list[str]:
    return [line.split()[0] for line in gitattributes.splitlines() if "filter=lfs" in line]


def matches_any(path: str, patterns: Iterable[str]) -> bool:
    """Like git: a pattern without a slash is about the name, wherever the file lies."""
    name = path.rsplit("/", 1)[-1]
    return any(fnmatch(path, pattern) or ("/" not in pattern and fnmatch(name, pattern)) for pattern in patterns)


class LfsStore:
    """Nothing gets in under a hash that is not its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def _path(self, sha256: str) -> Path:
        if not SHA256.fullmatch(sha256):
            raise ApiError(400, f"Not a sha256: {sha256}")
        return self.folder / sha256[:2] / sha256[2:4] / sha256

    def size(self, sha256: str) -> int | None:
        path = self._path(sha256)
        return path.stat().st_size if path.exists() else None

    def read(self, sha256: str) -> bytes:
        return self._path(sha256).read_bytes()

    def add(self, content: bytes, sha256: str) -> None:
        if hashlib.sha256(content).hexdigest() != sha256:
            raise ApiError(400, "The content has another sha256 than its name says")
        path = self._path(sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_bytes(content)
        partial.rename(path)

    def hashes(self) -> Iterator[str]:
        return (path.name for path in self.folder.glob("*/*/*"))
