"""Checkpoints: all that a run needs to go on as if it had never stopped.

    checkpoints/step-00000040-epoch-0002/
        weights.safetensors    what is trained: adapter and head, or all weights
        optimizer.safetensors  its state for each of them, by its name
        best.safetensors       the weights of the best epoch, once there is one
        state.json             how far the run is, the scale of fp16, and what the run is made of
        log.jsonl              the log up to here
        manifest.json          sha256 of the others; written last

The epoch in the name is the last one that was validated. Only safetensors and JSON, no pickle. There is no state of a
random number generator: what is drawn follows from the seed and the place in the run.

A checkpoint is written beside its place, flushed to the disk with its folder, renamed and read again; only then are
older ones removed. So a kill, a full disk or a power cut at any moment leaves the last one whole.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from nlp_transfer.durable import FULL, remove_folder, room, sync_folder, write_file
from nlp_transfer.errors import ConfigError, TrainingError
from nlp_transfer.fingerprints import hash_files
from nlp_transfer.reporting.progress import say

FOLDER = "checkpoints"
WEIGHTS_FILE, OPTIMIZER_FILE, BEST_FILE = "weights.safetensors", "optimizer.safetensors", "best.safetensors"
STATE_FILE, LOG_FILE, MANIFEST_FILE = "state.json", "log.jsonl", "manifest.json"
NEEDED = (WEIGHTS_FILE, OPTIMIZER_FILE, STATE_FILE, LOG_FILE)
FORMAT = 1
"""Of the files and what they mean."""

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """What one holds, as it is written and read."""

    weights: Tensors
    optimizer: Tensors
    best: Tensors | None
    state: dict[str, Any]
    log: bytes

    def files(self) -> Iterator[tuple[str, bytes]]:
        """One after the other, so that one at a time is in memory."""
        yield WEIGHTS_FILE, serialized(self.weights)
        yield OPTIMIZER_FILE, serialized(self.optimizer)
        if self.best is not None:
            yield BEST_FILE, serialized(self.best)
        yield STATE_FILE, json.dumps(self.state, indent=2, ensure_ascii=False).encode()
        yield LOG_FILE, self.log

    def num_bytes(self, block: int) -> int:
        """On a disk that is given out in blocks of so many bytes."""
        return sum(-(-len(data) // block) * block for _, data in self.files())


def serialized(tensors: Tensors) -> bytes:
    # its own save_file hides what the system says of a full disk
    return safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})


def checkpoint_name(step: int, validated: int) -> str:
    """Names sort as their checkpoints follow each other."""
    return f"step-{step:08d}-epoch-{validated:04d}"


def checkpoints_of(run_dir: Path) -> list[Path]:
    """Oldest first, damaged ones included."""
    return sorted(path for path in (run_dir / FOLDER).glob("step-*") if path.is_dir())


def write_checkpoint(checkpoint: Checkpoint, folder: Path, *, keep: int) -> None:
    """Write, read again, and then remove all but the last ``keep``.

    Raises OSError naming the folder, the bytes needed and free, when the disk is full: nothing has changed then. Raises
    TrainingError when the disk gives back something else than was written.
    """
    staged = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(staged, ignore_errors=True)
    try:
        staged.mkdir(parents=True)
        write_files(checkpoint, staged)
        staged.rename(folder)
        sync_folder(folder.parent)
        sync_folder(folder.parent.parent)
    except OSError as error:
        shutil.rmtree(staged, ignore_errors=True)
        if error.errno not in FULL:
            raise
        raise OSError(error.errno, full_disk(error, checkpoint, folder), str(folder)) from error
    if problem := damage(folder):
        raise TrainingError(f"{folder}: {problem}, though it has just been written. The disk cannot be trusted.")
    for older in checkpoints_of(folder.parent.parent)[:-keep]:
        remove_folder(older)


def write_files(checkpoint: Checkpoint, folder: Path) -> None:
    written = {}
    for name, data in checkpoint.files():
        write_file(folder / name, data)
        written[name] = hashlib.sha256(data).hexdigest()  # of what was meant, whatever the disk made of it
    write_file(folder / MANIFEST_FILE, manifest_of(written))
    sync_folder(folder)


def manifest_of(hashes: Mapping[str, str]) -> bytes:
    return json.dumps({"sha256": dict(sorted(hashes.items()))}, indent=2).encode()


def full_disk(error: OSError, checkpoint: Checkpoint, folder: Path) -> str:
    older = checkpoints_of(folder.parent.parent)
    left = f"The checkpoint before, {older[-1].name}, is whole" if older else "There is no checkpoint before"
    needed = checkpoint.num_bytes(folder.parent.stat().st_blksize)
    return f"{error.strerror} ({room(folder, needed)}). {left}. Make room and give the same command again."


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint: its files must be what its manifest says, and that must be in its own form.

    An error of the machine while reading is raised: it says nothing about the file.
    """
    manifest = folder / MANIFEST_FILE
    if not manifest.exists():
        return f"{MANIFEST_FILE} is missing"
    try:
        written = manifest.read_bytes()
        hashes = json.loads(written)["sha256"]
        in_form = {*NEEDED} <= hashes.keys() and written == manifest_of(hashes)
    except (ValueError, KeyError, TypeError, AttributeError):
        in_form = False
    if not in_form:
        return f"{MANIFEST_FILE} is not as it was written"
    for name in hashes:
        if not (folder / name).exists():
            return f"{name} is missing"
        if hash_files([folder / name]) != hashes[name]:
            return f"{name} is not what {MANIFEST_FILE} says"
    return None


def last_checkpoint(run_dir: Path) -> Path | None:
    """The newest one that is whole. Newer ones that are not are set aside, and a line says so."""
    for left_over in (run_dir / FOLDER).glob(".step-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    for folder in reversed(checkpoints_of(run_dir)):
        problem = damage(folder)
        if problem is None:
            return folder
        aside = folder.with_name(f"damaged-{folder.name}")
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
        say(f"{folder} is damaged: {problem}. It is kept as {aside.name}, and the one before is looked for.")
    return None


def read_state(folder: Path) -> dict[str, Any]:
    """Of a checkpoint that ``last_checkpoint`` has found whole, whatever its format."""
    state: dict[str, Any] = json.loads((folder / STATE_FILE).read_text("utf-8"))
    return state


def read_checkpoint(folder: Path, state: dict[str, Any]) -> Checkpoint:
    """All of it. Raises ConfigError where its format is another one."""
    best = folder / BEST_FILE
    if state.get("format") != FORMAT:
        raise ConfigError(
            f"{folder} has format {state.get('format')}, and this version reads format {FORMAT}. Finish the run with "
            "the version that began it, or pass --overwrite to begin anew."
        )
    return Checkpoint(
        weights=safetensors.torch.load_file(folder / WEIGHTS_FILE),
        optimizer=safetensors.torch.load_file(folder / OPTIMIZER_FILE),
        best=safetensors.torch.load_file(best) if best.exists() else None,
        state=state,
        log=(folder / LOG_FILE).read_bytes(),
    )


def remove_checkpoints(run_dir: Path) -> None:
    """Of a run that is replaced. Damaged ones that were set aside stay."""
    for folder in checkpoints_of(run_dir):
        remove_folder(folder)
