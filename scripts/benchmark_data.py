"""A million rows of jsonl: memory and time of reading and tokenizing, beside the `datasets` library.

    python scripts/benchmark_data.py
    python scripts/benchmark_data.py --rows 100000 --rounds 1
    python scripts/benchmark_data.py --write

Every figure comes from a process of its own with an empty cache of its own; the two sides take turns. Memory is by how
much the process's peak lies above what it held after its imports. A second start is the same call again, in another new
process. With --write the table goes to docs/data.md, with commit and machine. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from datetime import date
from pathlib import Path
from typing import Any

from measured import committed, fill, machine

from nlp_transfer.reporting.tables import markdown_table

PROJECT = Path(__file__).parent.parent
PAGE = PROJECT / "docs" / "data.md"
COMMON = ("the", "of", "and", "to", "in", "a", "is", "that", "for", "it", "as", "was", "with", "be", "by", "on", "not")
LABELS = [f"class_{i}" for i in range(77)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="write the table into docs/data.md")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--file", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        with redirect_stdout(sys.stderr):
            found = SIDES[args.side](args.file)
        print(json.dumps(found))
        return
    commit = committed() if args.write else "the code as it is"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        write_rows(file, args.rows)
        size = file.stat().st_size / 2**20
        rounds = [{side: twice(side, file, Path(folder) / f"{n}-{side}") for side in SIDES} for n in range(args.rounds)]
    table = report(rounds, args.rows)
    how = (
        f"{args.rows:,} rows of jsonl, {size:.0f} MiB; mean and range of {args.rounds} rounds; `python "
        f"scripts/benchmark_data.py` at {commit}, {date.today()}, {machine(os.cpu_count() or 1, 1)}."
    )
    print(f"{table}\n\n{how}")
    if args.write:
        fill(PAGE, "benchmark_data", f"{table}\n\n{how}")


def write_rows(path: Path, rows: int) -> None:
    """English function words among 20,000 made-up ones, 5 to 20 a row, under 77 labels."""
    rng = random.Random(0)
    rare = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(20_000)]
    with path.open("w") as file:
        for number in range(rows):
            words = [rng.choice(COMMON if rng.random() < 0.5 else rare) for _ in range(rng.randint(5, 20))]
            row = {"text": f"{' '.join(words)} {number}", "label": rng.choice(LABELS)}
            file.write(json.dumps(row) + "\n")


def twice(side: str, file: Path, cache: Path) -> list[dict[str, float]]:
    """In an empty cache, and again in what that left."""
    command = [sys.executable, __file__, "--side", side, "--file", str(file)]
    env = os.environ | {
        "NLP_TRANSFER_CACHE": str(cache),
        "HF_DATASETS_CACHE": str(cache),
        "PYTHONPATH": str(PROJECT),
    }
    runs = [subprocess.run(command, env=env, check=True, capture_output=True, text=True) for _ in range(2)]
    return [json.loads(done.stdout.splitlines()[-1]) for done in runs]


def ours(file: str) -> dict[str, float]:
    import nlp_transfer as nt
    from nlp_transfer.data.reading import read_text_classification

    # what reading imports, and the model, are there before its memory is measured
    labels = nt.LabelSet.collect(LABELS)
    model = nt.load_sequence_classifier(nt.default_checkpoint(), labels)
    splits, reading = measured(lambda: read_text_classification(nt.TextData(train=file)))
    counts, scanning = measured(splits.train.class_places)
    task = nt.TextClassification(labels=labels)
    encoded, tokenizing = measured(lambda: [task.encode(part, model) for part in splits.parts().values()])
    assert len(counts) == len(LABELS)
    return figures(reading, scanning, tokenizing) | {"rows": sum(map(len, encoded))}


def theirs(file: str) -> dict[str, float]:
    import datasets

    import nlp_transfer as nt

    tokenizer = nt.load_sequence_classifier(nt.default_checkpoint(), nt.LabelSet.collect(LABELS)).tokenizer
    datasets.disable_progress_bars()
    rows, reading = measured(lambda: datasets.load_dataset("json", data_files=file)["train"])
    counts, scanning = measured(lambda: set(rows["label"]))
    encoded, tokenizing = measured(
        lambda: rows.map(lambda batch: tokenizer(batch["text"], truncation=True, max_length=512), batched=True)
    )
    assert len(counts) == len(LABELS)
    return figures(reading, scanning, tokenizing) | {"rows": len(encoded)}


SIDES: dict[str, Callable[[str], dict[str, float]]] = {"nlp-transfer": ours, "datasets": theirs}


def measured(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What ``work`` gives, its seconds, and by how many MiB the process's peak lies above what it held before."""
    before = memory("VmRSS")
    start = time.perf_counter()
    result = work()
    return result, {"seconds": time.perf_counter() - start, "added": max(0.0, memory("VmHWM") - before)}


def memory(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def figures(reading: dict[str, float], scanning: dict[str, float], tokenizing: dict[str, float]) -> dict[str, float]:
    return {
        "reading (s)": reading["seconds"],
        "memory added by reading (MiB)": reading["added"],
        "label scan (s)": scanning["seconds"],
        "tokenizing (s)": tokenizing["seconds"],
        "memory added by tokenizing (MiB)": tokenizing["added"],
    }


def report(rounds: list[dict[str, list[dict[str, float]]]], rows: int) -> str:
    lines = []
    for number, start in enumerate(("first start", "second start")):
        for figure in (name for name in rounds[0]["datasets"][0] if name != "rows"):
            ours_, theirs_ = ([one[side][number][figure] for one in rounds] for side in SIDES)
            lines.append([f"{start}: {figure}", shown(ours_), shown(theirs_), ratio(theirs_, ours_)])
    speeds = [[rows / one[side][0]["tokenizing (s)"] for one in rounds] for side in SIDES]
    lines.append(["first start: rows tokenized a second", *map(shown, speeds), ratio(*speeds)])
    return markdown_table(["", "nlp-transfer", "datasets", "better by"], lines)


def shown(values: list[float]) -> str:
    digits = 0 if min(values) >= 100 else 2
    return f"{statistics.mean(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def ratio(worse: list[float], better: list[float]) -> str:
    return f"{statistics.mean(worse) / max(statistics.mean(better), 0.01):.2f}×"


if __name__ == "__main__":
    main()
