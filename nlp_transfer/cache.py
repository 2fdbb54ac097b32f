"""What was read and tokenized before, on disk, under a key made of everything it depends on.

Entries are never changed, so the folder may be deleted at any time; what is missing is made anew.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from nlp_transfer.errors import ConfigError
from nlp_transfer.fingerprints import hash_json

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

    Of several processes one writes and the others wait. ``write`` may raise: nothing is kept then. Raises ConfigError
    where the cache folder cannot be written.
    """
    folder = cache_folder() / kind / hash_json([code_fingerprint(), *map(version, MAKERS), *key])
    with locked(folder):
        try:
            return load(folder)
        except DAMAGED:
            shutil.rmtree(folder, ignore_errors=True)
        fill(folder, write)
        return load(folder)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    lock = FileLock(folder.with_suffix(".lock"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise ConfigError(
            f"{cache_folder()}: the cache cannot be written ({error.strerror or error}). Name another folder with the "
            f"environment variable {FOLDER_VARIABLE}."
        ) from error
    try:
        yield
    finally:
        lock.release()


def fill(folder: Path, write: Callable[[Path], None]) -> None:
    """Write beside the place and rename, so that a kill leaves no half an entry."""
    staged = folder.with_suffix(".part")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir()
    try:
        write(staged)
        staged.rename(folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


@functools.cache
def code_fingerprint() -> str:
    """Of the toolkit's own code: what one version wrote, another one never reads."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
