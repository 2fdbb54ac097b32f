"""How long from the command to the first step?

    python scripts/benchmark_startup.py --train train.csv --label-column category --write

Measured in turns: a process that imports torch and the parts of transformers that any training needs, and one that
runs the recipe, up to the first line of ``times.jsonl``, which is written after the first step. The data set was read
before, so it comes from the cache. ``--write`` fills docs/performance.md.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro
from measured import PROJECT, command_line, committed, fill, machine, missing, not_positive, refuse, spread

PAGE = PROJECT / "docs" / "performance.md"
IMPORTS = "import torch; from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel"
POLL = 0.01
"""Seconds between looks at the file."""


@dataclass(frozen=True, kw_only=True)
class Config:
    train: Path
    """Labelled file for text classification."""
    label_column: str | None = None
    """Where its name does not say so."""
    rounds: int = 5
    threads: int = os.cpu_count() or 1
    write: bool = False
    """Put the table into docs/performance.md."""


def main() -> None:
    from nlp_transfer.reporting.tables import markdown_table

    config = tyro.cli(Config, description=__doc__)
    refuse(missing([config.train]) or not_positive(config, "rounds", "threads"))
    commit = committed() if config.write else "not recorded"
    first_step(config)  # reads and tokenizes
    imports, steps = [], []
    for _ in range(config.rounds):
        imports.append(seconds_of_imports(config))
        steps.append(first_step(config))
    beyond = [step - own for step, own in zip(steps, imports, strict=True)]
    named = {"importing torch and transformers": imports, "command to first step": steps, "beyond the imports": beyond}
    cells = [[name, spread(s, 1)] for name, s in named.items()]
    how = f"Commit {commit}; medians of {config.rounds} rounds, with the smallest and largest; "
    how += f"{machine(config.threads, 1)}. `{command_line()}`"
    body = f"{how}\n\n{markdown_table(['', 'seconds'], cells)}"
    print(body)
    if config.write:
        fill(PAGE, "benchmark_startup", body)


def variables(config: Config) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": str(config.threads), "PYTHONPATH": str(PROJECT)}


def seconds_of_imports(config: Config) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True, env=variables(config), capture_output=True)
    return time.perf_counter() - start


def first_step(config: Config) -> float:
    with tempfile.TemporaryDirectory() as folder:
        words = ["text_classification", "--train", str(config.train), "--run-dir", f"{folder}/run"]
        column = ["--label-column", config.label_column] if config.label_column else []
        command = [sys.executable, "-m", "nlp_transfer", "run", *words, *column]
        times = Path(folder, "run", "times.jsonl")
        start = time.perf_counter()
        with (
            open(f"{folder}/stderr", "w+", encoding="utf-8") as said,
            subprocess.Popen(command, env=variables(config), stderr=said) as running,
        ):
            while not (times.is_file() and times.stat().st_size) and running.poll() is None:
                time.sleep(POLL)
            seconds = time.perf_counter() - start
            if running.poll() is not None:
                said.seek(0)
                sys.exit(f"{said.read()}error: `{' '.join(command)}` made no step.")
            running.terminate()
    return seconds


if __name__ == "__main__":
    main()
