"""Where a run begins, when it is saved, and what comes out of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from nlp_transfer.adapters.trainable import trainable_state
from nlp_transfer.checkpoints import Model
from nlp_transfer.errors import ConfigError, TrainingError
from nlp_transfer.folder_locks import is_taken, leave, take
from nlp_transfer.reporting.progress import say
from nlp_transfer.training.checkpointing import (
    FOLDER,
    FORMAT,
    LOG_FILE,
    Checkpoint,
    Tensors,
    checkpoint_name,
    last_checkpoint,
    read_checkpoint,
    read_state,
    write_checkpoint,
)
from nlp_transfer.training.log import METRICS_FILE, Log, refuse_finished
from nlp_transfer.training.parallel import by_main, from_main, gathered, tensors_from_main, weights_of
from nlp_transfer.training.precision import unwrap
from nlp_transfer.training.prepare import Run
from nlp_transfer.training.resume import Origin, capture, differences, on_cpu, restore

TRAINING: set[Path] = set()
"""Folders that a thread of this process is training in."""


class Saving:
    """Begins a run, anew or from its last checkpoint, and writes the next ones. All processes call its methods; the
    main one reads and writes.
    """

    def __init__(self, run: Run, run_dir: Path, log: Log, keep: int, origin: Origin) -> None:
        self._run, self._run_dir, self._log, self._keep, self._origin = run, run_dir, log, keep, origin
        self._found: Checkpoint | None = None
        self._best: Tensors | None = None
        self._last = ""

    def begin(self, *, overwrite: bool) -> bool:
        """Go on from the last checkpoint of the same run; where there is none, begin anew. Gives whether it goes on.

        Raises ConfigError where the folder holds a finished run, or an unfinished one that was made of something else,
        unless ``overwrite``; and where the processes were given different settings or data.
        """
        self._refuse_different_processes()
        state = by_main(lambda: self._find(overwrite))
        if state is None:
            by_main(self._log.start_anew)
            self._say_room()
            return False
        restore(self._run, state, self._found)
        progress = self._run.state.progress
        self._last = checkpoint_name(progress.step, progress.validated)
        if self._found is not None:
            self._best = self._found.best
        by_main(lambda: self._log.go_on(self._found.log if self._found else b""))
        self._found = None
        say(f"Going on from step {progress.step:,} of {self._run.plan.num_steps:,}.{self._origin.changes(state)}")
        return True

    def _say_room(self) -> None:
        """Weights, two moments and the best weights, for each checkpoint that is kept and the one being written."""
        weights = trainable_state(self._run.model.network).values()
        needed = 4 * sum(tensor.nbytes for tensor in weights) * (self._keep + 1)
        free = from_main(shutil.disk_usage(self._run_dir).free if self._run.accelerator.is_main_process else 0)
        if needed > free:
            say(f"{self._run_dir}: checkpoints may need {needed:,} bytes, and {free:,} are free.")

    def _refuse_different_processes(self) -> None:
        """Gradients are summed over processes, so nothing else would ever tell."""
        first, *others = gathered(self._origin.made_of)
        for process, other in enumerate(others, start=1):
            if changed := differences(first, other):
                raise ConfigError(
                    f"Process {process} was started with other settings or data than process 0: {'; '.join(changed)}. "
                    "Start all processes with the same command, on machines that hold the same files."
                )

    def _find(self, overwrite: bool) -> dict[str, Any] | None:
        """Reads the checkpoint to go on from, and gives its state."""
        refuse_finished(self._run_dir, overwrite=overwrite)
        if (self._run_dir / METRICS_FILE).exists():
            return None
        folder = last_checkpoint(self._run_dir)
        if folder is None:
            if (self._run_dir / LOG_FILE).exists():
                say(f"No whole checkpoint is left of the unfinished run in {self._run_dir}: it begins anew.")
            return None
        state = read_state(folder)
        if overwrite and state.get("format") != FORMAT:
            say(f"{self._run_dir} holds an unfinished run of another version, which is replaced.")
            return None
        self._found = read_checkpoint(folder, state)
        changed = differences(self._found.state["made_of"], self._origin.made_of)
        if not changed:
            return self._found.state
        if overwrite:
            say(f"{self._run_dir} holds an unfinished run with other settings or data, which is replaced.")
            return None
        raise ConfigError(
            f"{self._run_dir} holds an unfinished run that was made of something else: {'; '.join(changed)}. To finish "
            "it, take the old settings and data; to replace it, pass --overwrite (overwrite=True); or name another "
            "--run-dir."
        )

    def save(self) -> None:
        """Write a checkpoint, unless the last one is of this very place.

        Raises OSError when the disk is full, and TrainingError when it cannot be trusted, in every process.
        """
        progress = self._run.state.progress
        name = checkpoint_name(progress.step, progress.validated)
        if name == self._last:
            return
        checkpoint = capture(self._run, self._best, self._log.content(), self._origin)
        by_main(lambda: write_checkpoint(checkpoint, self._run_dir / FOLDER / name, keep=self._keep))
        self._last = name

    def keep_best(self) -> None:
        """The weights as they are now; the next checkpoint holds them."""
        self._best = on_cpu(weights_of(self._run.network).items())

    def best_model(self) -> Model:
        """The model as it was after its best epoch."""
        run = self._run
        if not from_main(self._best is not None):
            raise TrainingError("No epoch was finished, so there is no model.")
        unwrap(run.state.network)
        weights = trainable_state(run.model.network)
        with torch.no_grad():
            for name, tensor in tensors_from_main(self._best):
                weights[name].copy_(tensor)
        return replace(run.model, network=run.model.network.eval())


def take_folder(run_dir: Path) -> None:
    """For this run alone; the main process holds it. Raises ConfigError where another run is at work in it."""
    if not by_main(lambda: take(run_dir)):
        say(f"{run_dir} lies where files cannot be locked: see that no other run writes there.")


@contextmanager
def alone_in(run_dir: Path) -> Iterator[None]:
    """``take_folder``, to the end; where this run has taken it before, it goes on holding it, unless it fails.

    Raises ConfigError where another thread of this process trains in the folder, too.
    """
    folder, was_taken = run_dir.resolve(), is_taken(run_dir)
    if folder in TRAINING:
        raise ConfigError(f"Another run of this process is at work in {run_dir}. Name another folder.")
    take_folder(run_dir)
    TRAINING.add(folder)
    try:
        yield
    except BaseException:
        leave(run_dir)
        raise
    finally:
        TRAINING.discard(folder)
    if not was_taken:
        leave(run_dir)
