"""One run at a time in a folder: a job may be queued twice, or typed twice."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING

from nlp_transfer.errors import ConfigError

if TYPE_CHECKING:
    from filelock import FileLock

LOCK_FILE = Path("checkpoints", ".lock")
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
"""What a file system says that has none: NFS without its lock service, some of clusters."""
PATIENCE = 5.0
"""Seconds to wait for a run in the same folder that is just ending."""
HELD: dict[Path, FileLock | None] = {}
"""Of the folders that this process is at work in; None where the file system has no locks."""


def take(run_dir: Path, patience: float | None = None) -> bool:
    """From here on no other process may; a second time changes nothing. False where the file system has no locks.

    Raises ConfigError where another process is at work in the folder, and still is after ``patience`` seconds.
    """
    from filelock import FileLock, Timeout

    folder = run_dir.resolve()
    if folder in HELD:
        return True
    # no soft lock in its stead: after a kill that would stay, and refuse the run on any other machine
    lock = FileLock(folder / LOCK_FILE, fallback_to_soft=False, thread_local=False)
    (run_dir / LOCK_FILE).parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=PATIENCE if patience is None else patience)
    except Timeout:
        raise ConfigError(
            f"Another run is at work in {run_dir}. Wait for its end, or name another folder. (A notebook that began a "
            "run there may still hold it.)"
        ) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        HELD[folder] = None
        return False
    HELD[folder] = lock
    return True


def leave(run_dir: Path) -> None:
    """Others may. Nothing happens where the folder was not taken."""
    lock = HELD.pop(run_dir.resolve(), None)
    if lock is not None:
        lock.release()


def is_taken(run_dir: Path) -> bool:
    """By this process."""
    return run_dir.resolve() in HELD
