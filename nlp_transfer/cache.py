"""What was read and tokenized before, on disk, under a key made of everything it depends on.

Entries are never changed. The folder may be deleted when no run is starting; what is missing is made anew.
"""

from __future__ import annotations

import atexit
import errno
import functools
import os
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from nlp_transfer.fingerprints import code_sha256, hash_json
from nlp_transfer.reporting.progress import say

T = TypeVar("T")

FOLDER_VARIABLE = "NLP_TRANSFER_CACHE"
MAKERS = ("pyarrow", "datasets", "transformers", "tokenizers", "sentencepiece")
"""Libraries whose version may change what is kept."""
DAMAGED = (OSError, ValueError, KeyError)
"""What loading an entry raises when its files are cut, foreign or gone (pyarrow's errors are ValueErrors)."""


def cache_folder() -> Path:
    """``NLP_TRANSFER_CACHE``, else ``nlp_transfer`` in the user's cache folder."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named).expanduser()
    home = os.path.expanduser("~")  # where there is no home, as in some containers, "~" itself
    own = Path(tempfile.gettempdir() if home == "~" else home) / ".cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or own) / "nlp_transfer"


def cached(kind: str, key: Sequence[Any], write: Callable[[Path], None], load: Callable[[Path], T]) -> T:
    """Load the entry of ``key``; where there is none, or a damaged one, ``write`` it into the folder it is given.

    Of several processes one writes and the others wait. ``write`` may raise: nothing is kept then. Where the cache
    cannot be written, the entry lies in a temporary folder until the process ends.
    """
    folder = cache_folder() / kind / hash_json([*makers(), *key])
    with suppress(*DAMAGED):
        return load(folder)
    with writable(folder) as place:
        with suppress(*DAMAGED):  # another process may have written it by now
            return load(place)
        shutil.rmtree(place, ignore_errors=True)
        fill(place, write)
        return load(place)


@contextmanager
def writable(folder: Path) -> Iterator[Path]:
    """The folder, locked; or a temporary one, and a line that says so."""
    lock = FileLock(folder.with_suffix(".lock"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        say(f"{cache_folder()}: nothing is kept, since the cache cannot be written ({error.strerror or error}).")
        yield temporary_folder() / folder.name
        return
    try:
        yield folder
    finally:
        lock.release()


def fill(folder: Path, write: Callable[[Path], None]) -> None:
    """Write beside the place and rename, so that a kill leaves no half an entry."""
    staged = folder.with_suffix(".part")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    try:
        write(staged)
        staged.rename(folder)
    except OSError as error:
        if error.filename is not None:
            raise  # of the file that is read, which names itself
        reason = f"the cache cannot be written ({error}). Name another folder with {FOLDER_VARIABLE}"
        raise OSError(error.errno or errno.EIO, reason, str(cache_folder())) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)


@functools.cache
def temporary_folder() -> Path:
    """Of this process, and gone with it."""
    folder = Path(tempfile.mkdtemp(prefix="nlp_transfer-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def makers() -> tuple[str, ...]:
    """The toolkit's own code, and the versions of what it calls: what others wrote is never read."""
    return code_sha256(), unicodedata.unidata_version, *map(version, MAKERS)
