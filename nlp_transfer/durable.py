"""Files that are whole or not there, whatever happens while they are written."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says when a disk, a quota or the allowed size of a file is used up."""


def as_path(path: str | Path) -> Path:
    """What a user names, ``~`` being the home; where there is no such home, as it is (``Path.expanduser`` raises)."""
    return Path(os.path.expanduser(path))


def write_file(path: Path, data: bytes) -> None:
    """Write, and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, data: bytes) -> None:
    """Put a new file in the place of an old one: there is always one of them."""
    beside = path.with_name(f".{path.name}.new")
    with naming(path, len(data)):
        try:
            write_file(beside, data)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    sync_folder(path.parent)


def append_line(path: Path, line: str) -> None:
    with naming(path, len(line)), path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def sync_file(path: Path) -> None:
    """Wait until the disk has what others have written into it."""
    opened = os.open(path, os.O_RDWR)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in it (POSIX: fsync of a file does not keep its name)."""
    if os.name == "nt":
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def remove_folder(folder: Path) -> None:
    """First its name, so that a kill in between leaves no half a folder under it."""
    hidden = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(hidden, ignore_errors=True)
    folder.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


@contextmanager
def naming(path: Path, needed: int) -> Iterator[None]:
    """An OSError of a full disk names ``path``, the bytes to be written and the bytes that are free: the system's own
    does not when it comes from a write.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise OSError(error.errno, f"{error.strerror} ({room(path, needed)})", str(path)) from error


def room(path: Path, needed: int) -> str:
    return f"{needed:,} bytes needed, {shutil.disk_usage(path.parent).free:,} free"
