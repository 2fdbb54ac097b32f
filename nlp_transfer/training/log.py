"""The log of a run, and the moment when the run takes over its folder."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from nlp_transfer.durable import append_line, replace_file
from nlp_transfer.errors import ConfigError
from nlp_transfer.metrics import Metrics
from nlp_transfer.reporting.progress import Bar, say
from nlp_transfer.signals import STOPPED_FILE
from nlp_transfer.training.checkpointing import LOG_FILE, remove_checkpoints
from nlp_transfer.training.defaults import TrainingPlan
from nlp_transfer.training.loop import StepResult
from nlp_transfer.training.state import Progress
from nlp_transfer.training.tracking import Trackers

CONFIG_FILE = "config.json"
SPLITS_FILE = "splits.json"
DATA_FILE = "data.json"
TIMES_FILE = "times.jsonl"
PREDICTIONS_FILE = "predictions.jsonl"
REPORT_FILE = "report.md"
CURVES_FILE, CONFUSION_FILE = "curves.png", "confusion.png"
SUMMARY_FILE = "summary.json"
METRICS_FILE = "metrics.json"
"""Its presence says that a run is finished."""


class Log:
    """``log.jsonl``: the plan, then a line a step and a line an epoch; ``times.jsonl``: when. Only the main process
    writes.

    They are two files so that the log of a run that was stopped and went on is, byte for byte, that of one that was
    not.
    """

    def __init__(self, run_dir: Path, progress: Progress, trackers: Trackers, *, writes: bool) -> None:
        self._run_dir, self._progress, self._trackers, self._writes = run_dir, progress, trackers, writes
        self._since = time.monotonic()

    def start_anew(self) -> None:
        """What an earlier run left goes, its model excepted, and what was staged for this one takes its place: the
        folder counts as unfinished. Until here a finished run in it stays whole.
        """
        if self._writes:
            self._run_dir.mkdir(parents=True, exist_ok=True)
            remove_checkpoints(self._run_dir)
            for name in (
                METRICS_FILE,
                SUMMARY_FILE,
                REPORT_FILE,
                PREDICTIONS_FILE,
                CURVES_FILE,
                CONFUSION_FILE,
                TIMES_FILE,
            ):
                (self._run_dir / name).unlink(missing_ok=True)
            self._take_over(b"")

    def go_on(self, log: bytes) -> None:
        """From the log as a checkpoint has it: what was written after that will be written again."""
        if self._writes:
            self._take_over(log)
            times = self._run_dir / TIMES_FILE
            whole_lines = times.read_bytes().rpartition(b"\n") if times.exists() else (b"", b"", b"")
            replace_file(times, b"".join(whole_lines[:2]))
        self._time({"step": self._progress.step, "resumed": True})

    def content(self) -> bytes:
        return (self._run_dir / LOG_FILE).read_bytes() if self._writes else b""

    def plan(self, plan: TrainingPlan, num_processes: int, precision: str, num_cut: int, metric: str) -> None:
        """The first line: what was chosen where the config left it open."""
        batches = plan.batches
        chosen = {
            "num_epochs": plan.num_epochs,
            "num_steps": plan.num_steps,
            "learning_rate": plan.learning_rate,
            "batch_size": batches.batch_size,
            "batch_tokens": batches.batch_tokens,
            "mixed_precision": precision,
            "num_processes": num_processes,
            "padding_share": round(batches.padding_share(0), 4),
            "examples_cut": num_cut,
            "selection_metric": metric,
        }
        self._write({"plan": chosen})

    def step(self, result: StepResult, bar: Bar) -> None:
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
        self._write(line if result.moved else line | {"skipped": True})
        self._time({"step": result.step})
        self._trackers.log({"loss": loss, "grad_norm": grad_norm, "learning_rate": result.learning_rate}, result.step)
        bar.advance(result.num_rows, f"loss {loss:.3f}")
        if not result.suspects:
            self._progress.epoch_loss += loss * result.num_targets
            self._progress.epoch_targets += result.num_targets

    def epoch(self, scores: Metrics) -> None:
        """Says and writes the mean loss over the epoch's targets beside the validation scores."""
        progress = self._progress
        loss = progress.epoch_loss / max(1, progress.epoch_targets)
        progress.epoch_loss, progress.epoch_targets = 0.0, 0
        rounded = {name: round(value, 4) for name, value in scores.items()}
        self._write(
            {"epoch": progress.epoch, "step": progress.step, "mean_loss": round(loss, 6), "validation": rounded}
        )
        self._time({"epoch": progress.epoch, "step": progress.step})
        self._trackers.log({"mean_loss": loss, **{f"validation/{k}": v for k, v in scores.items()}}, progress.step)
        shown = ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
        say(f"epoch {progress.epoch}: mean loss {loss:.3f}, validation {shown}")

    def _take_over(self, log: bytes) -> None:
        (self._run_dir / STOPPED_FILE).unlink(missing_ok=True)
        for name in (CONFIG_FILE, SPLITS_FILE, DATA_FILE):
            if (waiting := staged(self._run_dir / name)).is_file():
                waiting.replace(self._run_dir / name)
        replace_file(self._run_dir / LOG_FILE, log)

    def _write(self, line: dict[str, Any]) -> None:
        if self._writes:
            append_line(self._run_dir / LOG_FILE, json.dumps(line))

    def _time(self, line: dict[str, Any]) -> None:
        now = time.monotonic()
        self._progress.seconds, self._since = self._progress.seconds + now - self._since, now
        if self._writes:
            append_line(self._run_dir / TIMES_FILE, json.dumps(line | {"seconds": round(self._progress.seconds, 2)}))


def refuse_finished(run_dir: Path, *, overwrite: bool) -> None:
    """Raises ConfigError for a folder that holds a finished run."""
    if (run_dir / METRICS_FILE).exists() and not overwrite:
        raise ConfigError(
            f"--run-dir {run_dir} holds a finished run. Name another folder, or pass --overwrite (overwrite=True)."
        )


def finite(value: float) -> float | None:
    """JSON has no word for what is not finite."""
    return round(value, 6) if math.isfinite(value) else None


def staged(path: Path) -> Path:
    """Where a file of the run folder waits until training begins."""
    return path.with_name(f".{path.name}.part")
