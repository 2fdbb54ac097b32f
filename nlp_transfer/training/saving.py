"""Where a run begins, when it is saved, and what comes out of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from nlp_transfer.adapters.trainable import trainable_state
from nlp_transfer.checkpoints import Model
from nlp_transfer.errors import ConfigError, TrainingError
from nlp_transfer.reporting.progress import say
from nlp_transfer.training.checkpointing import (
    FOLDER,
    Checkpoint,
    Tensors,
    checkpoint_name,
    checkpoints_of,
    last_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from nlp_transfer.training.log import METRICS_FILE, Log
from nlp_transfer.training.parallel import from_main, weights_of
from nlp_transfer.training.prepare import Run
from nlp_transfer.training.resume import capture, differences, on_cpu, restore


class Saving:
    """Begins a run, anew or from its last checkpoint, and writes the next ones. All processes call its methods; the
    main one reads and writes.
    """

    def __init__(
        self, run: Run, run_dir: Path, log: Log, keep: int, made_of: dict[str, Any], made_with: dict[str, Any]
    ) -> None:
        self._run, self._run_dir, self._log, self._keep = run, run_dir, log, keep
        self._origin = {"made_of": made_of, "made_with": made_with}
        self._best: Tensors | None = None
        self._last = ""

    def begin(self, *, overwrite: bool) -> bool:
        """Go on from the last checkpoint of the same run; where there is none, begin anew. Gives whether it goes on.

        Raises ConfigError where the folder holds an unfinished run that was made of something else, unless
        ``overwrite``.
        """
        found = from_main(self._find(overwrite) if self._run.accelerator.is_main_process else None)
        if isinstance(found, ConfigError):
            raise found
        if found is None:
            self._log.start_anew()
            return False
        restore(self._run, found)
        progress = self._run.state.progress
        self._best, self._last = found.best, checkpoint_name(progress.step, progress.validated)
        self._log.go_on(found.log)
        changed = differences(found.state["made_with"], self._origin["made_with"])
        say(
            f"Going on from step {progress.step:,} of {self._run.plan.num_steps:,}."
            + (f" Other than before: {', '.join(changed)}. The result may differ in rounding." if changed else "")
        )
        return True

    def _find(self, overwrite: bool) -> Checkpoint | ConfigError | None:
        if (self._run_dir / METRICS_FILE).exists():
            return None
        some = bool(checkpoints_of(self._run_dir))
        folder = last_checkpoint(self._run_dir)
        if folder is None:
            if some:
                say("No whole checkpoint is left: the run begins anew.")
            return None
        checkpoint = read_checkpoint(folder)
        changed = differences(checkpoint.state["made_of"], self._origin["made_of"])
        if not changed:
            return checkpoint
        if overwrite:
            say(f"{self._run_dir} holds an unfinished run with other settings or data, which is replaced.")
            return None
        return ConfigError(
            f"{self._run_dir} holds an unfinished run that was made of something else: {'; '.join(changed)}. To finish "
            "it, take the old settings and data; to replace it, pass --overwrite; or name another --run-dir."
        )

    def save(self) -> None:
        """Write a checkpoint, unless the last one is of this very place.

        Raises OSError when the disk is full, and TrainingError when it cannot be trusted, in every process.
        """
        progress = self._run.state.progress
        name = checkpoint_name(progress.step, progress.validated)
        if name == self._last:
            return
        checkpoint = capture(self._run, self._best, self._log.content(), **self._origin)
        problem = None
        if self._run.accelerator.is_main_process:
            try:
                write_checkpoint(checkpoint, self._run_dir / FOLDER / name, keep=self._keep)
            except (OSError, TrainingError) as error:
                problem = error
        if raised := from_main(problem):
            raise raised
        self._last = name

    def keep_best(self) -> None:
        """The weights as they are now; the next checkpoint holds them."""
        self._best = on_cpu(weights_of(self._run.network))

    def best_model(self) -> Model:
        """The model as it was after its best epoch."""
        run, best = self._run, self._best
        if best is None:
            raise TrainingError("No epoch was finished, so there is no model.")
        network = run.model.network
        run.accelerator.unwrap_model(run.state.network, keep_fp32_wrapper=False)
        with torch.no_grad():
            for name, parameter in trainable_state(network).items():
                parameter.copy_(best[name])
        return replace(run.model, network=network.eval())
