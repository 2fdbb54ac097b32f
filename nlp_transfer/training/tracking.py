"""Losses and scores to TensorBoard, Weights & Biases, MLflow or Trackio, through accelerate."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from accelerate import Accelerator

from nlp_transfer.errors import ConfigError, quoted
from nlp_transfer.training.config import TrainingConfig

PACKAGES = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
    "trackio": ("trackio",),
}


def refuse_missing_trackers(config: TrainingConfig) -> None:
    """Raises ConfigError: accelerate leaves a tracker out without a word where its package is missing."""
    for name in config.trackers:
        if not any(find_spec(package) for package in PACKAGES[name]):
            raise ConfigError(f"TrainingConfig.trackers {name}: install {quoted(PACKAGES[name][:1])}, or leave it out.")


def forget_tensorboard(folder: Path) -> None:
    """What a run that is replaced has sent there: TensorBoard would draw both as one line."""
    for path in folder.glob("**/events.out.tfevents.*"):
        path.unlink()


@dataclass(frozen=True)
class Trackers:
    """Where the main process sends numbers; nowhere if none was asked for."""

    accelerator: Accelerator

    @contextmanager
    def running(self, run_dir: Path, config: TrainingConfig, step: int) -> Iterator[None]:
        """From ``step`` on. The project is named after the run folder. (accelerate would start W&B and Trackio in every
        process.)
        """
        if config.trackers and self.accelerator.is_main_process:
            name = run_dir.resolve().name  # "." has none
            if step == 0 and "tensorboard" in config.trackers:
                forget_tensorboard(run_dir / name)
            self.accelerator.init_trackers(
                name,
                config={k: str(v) for k, v in asdict(config).items()},
                # steps that were sent before the run was stopped, and come again, are not shown twice
                init_kwargs={"tensorboard": {"purge_step": step + 1}},
            )
        try:
            yield
        finally:
            for tracker in self.accelerator.trackers:  # accelerate's own end_training ends the group of processes too
                tracker.finish()

    def log(self, values: Mapping[str, float], step: int) -> None:
        if self.accelerator.trackers:
            self.accelerator.log({name: value for name, value in values.items() if math.isfinite(value)}, step=step)
