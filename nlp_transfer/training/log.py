"""The log of a run, and the moment when the run takes over its folder."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from nlp_transfer.errors import TrainingError
from nlp_transfer.metrics import Metrics
from nlp_transfer.reporting.progress import Bar, say
from nlp_transfer.training.defaults import TrainingPlan
from nlp_transfer.training.loop import StepResult

CONFIG_FILE = "config.json"
SPLITS_FILE = "splits.json"
DATA_FILE = "data.json"
LOG_FILE = "log.jsonl"
METRICS_FILE = "metrics.json"
"""Its presence says that a run is finished."""


class Log:
    """A line a step and a line an epoch; only the main process writes.

    With it a run takes over its folder: settings and held-out parts that were staged there take their places, and the
    folder counts as unfinished. Until then a finished run in it stays whole.
    """

    def __init__(self, path: Path, writes: bool) -> None:
        self._path, self._writes = path, writes
        self._start = time.monotonic()
        self._epoch_loss, self._epoch_targets = 0.0, 0
        if writes:
            path.parent.mkdir(parents=True, exist_ok=True)
            (path.parent / METRICS_FILE).unlink(missing_ok=True)
            for name in (CONFIG_FILE, SPLITS_FILE, DATA_FILE):
                if (waiting := staged(path.parent / name)).is_file():
                    waiting.replace(path.parent / name)
            path.write_text("")

    def plan(self, plan: TrainingPlan, accelerator: Accelerator, num_cut: int, metric: str) -> None:
        """The first line: what was chosen where the config left it open."""
        batches = plan.batches
        chosen = {
            "num_epochs": plan.num_epochs,
            "num_steps": plan.num_steps,
            "learning_rate": plan.learning_rate,
            "batch_size": batches.batch_size,
            "batch_tokens": batches.batch_tokens,
            "mixed_precision": accelerator.mixed_precision,
            "num_processes": accelerator.num_processes,
            "padding_share": round(batches.padding_share(0), 4),
            "examples_cut": num_cut,
            "selection_metric": metric,
        }
        self._write({"plan": chosen})

    def step(self, result: StepResult, bar: Bar) -> None:
        """Raises TrainingError when the loss is not finite."""
        loss, grad_norm = result.loss.item(), float(result.grad_norm)
        line = {
            "step": result.step,
            "epoch": result.epoch,
            "loss": finite(loss),
            "grad_norm": finite(grad_norm),  # infinite where fp16 overflowed
            "learning_rate": result.learning_rate,
            "rows": result.num_rows,
            "targets": result.num_targets,
        }
        self._write(line)
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss is {loss} at step {result.step} (learning rate {result.learning_rate:.1e}). "
                "Try a lower learning_rate; with mixed_precision fp16, try bf16."
            )
        bar.advance(result.num_rows, f"loss {loss:.3f}")
        self._epoch_loss += loss * result.num_targets
        self._epoch_targets += result.num_targets

    def epoch(self, result: StepResult, scores: Metrics) -> None:
        """Says and writes the mean loss over the epoch's targets beside the validation scores."""
        loss = self._epoch_loss / max(1, self._epoch_targets)
        self._epoch_loss, self._epoch_targets = 0.0, 0
        rounded = {name: round(value, 4) for name, value in scores.items()}
        self._write({"epoch": result.epoch, "step": result.step, "mean_loss": round(loss, 6), "validation": rounded})
        shown = ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
        say(f"epoch {result.epoch}: mean loss {loss:.3f}, validation {shown}")

    def _write(self, line: dict[str, Any]) -> None:
        if self._writes:
            seconds = round(time.monotonic() - self._start, 2)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**line, "seconds": seconds}) + "\n")


def finite(value: float) -> float | None:
    """JSON has no word for what is not finite."""
    return round(value, 6) if math.isfinite(value) else None


def staged(path: Path) -> Path:
    """Where a file of the run folder waits until training begins."""
    return path.with_name(f".{path.name}.part")
