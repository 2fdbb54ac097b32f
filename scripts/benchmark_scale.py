"""Does the cost of training grow with the tokens, and with nothing else?

    python scripts/benchmark_scale.py --file banking77/train.csv --label-column category --rounds 5 --write

Sets of 1,000 rows up to a million are made of a file's rows, shuffled and repeated. Each is read, tokenized and trained
with LoRA for as many steps, whose order is random, in a process of its own with an empty cache; each round takes the
sizes in another order. The first steps are not timed. Tokens are those of the texts; memory is the most that the
process held.
``--write`` fills docs/performance.md.
"""

from __future__ import annotations

import csv
import json
import os
import random
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import tyro
from measured import (
    PROJECT,
    command_line,
    committed,
    fill,
    in_a_process,
    machine,
    missing,
    not_positive,
    peak_mib,
    refuse,
    spread,
)

PAGE = PROJECT / "docs" / "performance.md"
WARM_UP, BATCH_SIZE = 3, 32
HELD_OUT = 100
"""Rows to validate and to test on, for all sizes the same."""
Figures = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Config:
    file: Path
    """A csv file with texts and labels."""
    label_column: str = "label"
    sizes: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)
    steps: int = 100
    """Of 32 rows; the smallest set has several epochs of them."""
    threads: int = os.cpu_count() or 1
    rounds: int = 5
    write: bool = False
    """Put the table into docs/performance.md."""


def main() -> None:
    if sys.argv[1:2] == ["--work"]:
        print(json.dumps(work(**json.loads(sys.argv[2]))))
        return
    config = tyro.cli(Config, description=__doc__)
    refuse(missing([config.file]) or not_positive(config, "sizes", "steps", "threads", "rounds"))
    commit = committed() if config.write else "not recorded"
    found: dict[int, list[Figures]] = {size: [] for size in config.sizes}
    with tempfile.TemporaryDirectory() as folder:
        for size in config.sizes:
            write_rows(config.file, Path(folder) / f"{size}.csv", size)
        write_rows(config.file, Path(folder) / "held-out.csv", HELD_OUT)
        for round_ in range(config.rounds):
            for size in random.Random(round_).sample(config.sizes, len(config.sizes)):
                found[size].append(measured_once(folder, size, round_, config))
                print(f"round {round_ + 1}, {size:,} rows: {found[size][-1]}", file=sys.stderr)
    how = (
        f"Commit {commit}; {config.rounds} rounds of {config.steps} steps; medians, with the smallest and largest of "
        f"the rounds; {machine(config.threads, 1)}. `{command_line()}`"
    )
    body = f"{how}\n\n{table(found)}"
    print(body)
    if config.write:
        fill(PAGE, "benchmark_scale", body)


def write_rows(source: Path, target: Path, size: int) -> None:
    with source.open(newline="", encoding="utf-8") as read, target.open("w", newline="", encoding="utf-8") as written:
        header, *rows = csv.reader(read)
        random.Random(0).shuffle(rows)
        csv.writer(written).writerows([header, *islice(cycle(rows), size)])


def measured_once(folder: str, size: int, seed: int, config: Config) -> Figures:
    task = {"folder": folder, "size": size, "label": config.label_column, "steps": config.steps, "seed": seed}
    with tempfile.TemporaryDirectory() as cache:
        variables = {"NLP_TRANSFER_CACHE": cache, "TOKENIZERS_PARALLELISM": "true"}
        result: Figures = in_a_process(__file__, task, config.threads, **variables)
        return result


def work(folder: str, size: int, label: str, steps: int, seed: int) -> Figures:
    """In a process of its own: read, tokenize, and train some steps."""
    import nlp_transfer as nt
    from nlp_transfer.training.loop import train_steps
    from nlp_transfer.training.prepare import prepare

    held_out = f"{folder}/held-out.csv"
    data = nt.TextData(
        train=f"{folder}/{size}.csv",
        validation=held_out,
        test=held_out,
        label_column=label,
        allow_leakage=True,  # nothing is scored
    )
    start = time.perf_counter()
    splits = nt.read_text_classification(data, seed=0)
    reading = time.perf_counter() - start
    unseen = nt.TextClassificationConfig(on_unseen_label="keep")  # the smallest sets may lack some
    task = nt.TextClassification.for_splits(splits, unseen)
    model = nt.load_sequence_classifier(nt.default_checkpoint(), task.labels, seed=0)
    model = nt.add_adapter(model, "lora", nt.LoraConfig(rank=16), seed=0)
    epochs = -(-(WARM_UP + steps) * BATCH_SIZE // len(splits.train)) + 1
    config = nt.TrainingConfig(num_epochs=epochs, batch_size=BATCH_SIZE, learning_rate=1e-3, seed=seed)
    start = time.perf_counter()
    run = prepare(model, task, splits.train, config)
    preparing = time.perf_counter() - start
    planned = [step for epoch in range(epochs) for step in run.plan.batches.steps(epoch)][WARM_UP:][:steps]
    tokens = sum(int(run.split.lengths[list(rows)].sum()) for step in planned for rows in step.micro_batches)
    trained = train_steps(run.accelerator, run.state, run.loading, task.loss_sum, run.plan, config.max_grad_norm)
    assert sum(1 for _ in islice(trained, WARM_UP)) == WARM_UP
    start = time.perf_counter()
    assert sum(1 for _ in islice(trained, steps)) == len(planned) == steps
    seconds = time.perf_counter() - start
    return {
        "rows_per_second": len(splits.train) / (reading + preparing),
        "tokens_per_second": tokens / seconds,
        "memory_mib": peak_mib(),
    }


def table(found: dict[int, list[Figures]]) -> str:
    from nlp_transfer.reporting.tables import markdown_table

    smallest = found[min(found)]
    rows = [
        [
            f"{size:,}",
            f"{statistics.median(result['rows_per_second'] for result in results):,.0f}",
            f"{statistics.median(result['tokens_per_second'] for result in results):,.0f}",
            spread(
                [
                    own["tokens_per_second"] / first["tokens_per_second"]
                    for own, first in zip(results, smallest, strict=True)
                ]
            ),
            f"{statistics.median(result['memory_mib'] for result in results):,.0f}",
        ]
        for size, results in found.items()
    ]
    header = ["rows", "rows read and tokenized a second", "tokens trained a second", "against the smallest", "peak MiB"]
    return markdown_table(header, rows)


if __name__ == "__main__":
    main()
