"""How much memory is left to this process: what the machine has free, or what its container or job may still take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

OWN_GROUPS = Path("/proc/self/cgroup")
"""A line for each hierarchy of control groups: its number, what it controls, and the path of ours in it."""
MOUNTED = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Files:
    """What the two versions of control groups call the same."""

    limit: str
    used: str
    cached: str
    """In ``memory.stat``: of what is used, files that the kernel lets go of when memory is short."""


VERSION_1 = Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
VERSION_2 = Files("memory.max", "memory.current", "inactive_file")


def free_memory() -> int:
    """In bytes; whichever is less."""
    of_the_machine: int = psutil.virtual_memory().available
    return max(0, min([of_the_machine, *left_in_groups()]))


def left_in_groups() -> Iterator[int]:
    """Of our control groups and those around them that have a limit; none where there are no control groups."""
    for folder, files in groups():
        with suppress(OSError, ValueError):  # there is no such file, or the limit is "max"
            limit, used = (int((folder / name).read_text()) for name in (files.limit, files.used))
            yield limit - used + cached_in(folder, files)


def cached_in(folder: Path, files: Files) -> int:
    """0 where that is not told."""
    with suppress(OSError, ValueError):
        for line in (folder / "memory.stat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == files.cached:
                return int(value)
    return 0


def groups() -> Iterator[tuple[Path, Files]]:
    """From the innermost out. Inside a container the path may be that of the host, and its own group stands above."""
    try:
        lines = OWN_GROUPS.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        number, _, rest = line.partition(":")
        controlled, _, path = rest.partition(":")
        if number != "0" and "memory" not in controlled.split(","):
            continue
        root, files = (MOUNTED, VERSION_2) if number == "0" else (MOUNTED / "memory", VERSION_1)
        own = root / path.lstrip("/")
        yield from ((folder, files) for folder in (own, *own.parents) if folder.is_relative_to(root))
