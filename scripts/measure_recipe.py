"""Run a recipe with several seeds and write its row into recipes/README.md and README.md.

    python scripts/measure_recipe.py banking77_minilm_lora --name "Banking77" --seeds 0 1 2 --train T --test E
    python scripts/measure_recipe.py wnut17_minilm_lora --name "WNUT-17" --seeds 0 1 2 --peer --train T ...
    python scripts/measure_recipe.py --render

With --side-by-side 2, two seeds are trained at a time, each on half of the cores: less time in all, and scores that are
no different. The row says so, since its minutes are then those of half a machine.

All rows are kept in recipes/measured.json, each with commit, command, seeds and machine; the tables are made from it.
With --peer, HF Trainer + PEFT is trained on the same splits with the recipe's checkpoint, rank, epochs, learning rate
and batch size, and scored by the same function (scripts/peer_hf_trainer.py).
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from measured import committed, filled, machine

PROJECT = Path(__file__).parent.parent
MEASURED = PROJECT / "recipes" / "measured.json"
PEER_SCRIPT = PROJECT / "scripts" / "peer_hf_trainer.py"
PAGES = (PROJECT / "README.md", PROJECT / "recipes" / "README.md")
RESULTS = "results"
"""Name of the place on both pages."""
OURS, PEER = "nlp-transfer", "HF Trainer + PEFT"
HEADER = ("data, recipe", "by", "metric", "mean ± sd", "seeds", "minutes a run")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--name", help="what the row is called")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--side-by-side", type=int, default=1, help="how many seeds are trained at a time")
    parser.add_argument("--peer", action="store_true", help="measure HF Trainer + PEFT beside it")
    parser.add_argument("--render", action="store_true", help="only write the tables again")
    parser.add_argument("recipe", nargs="?")
    args, settings = parser.parse_known_args()
    if not args.render:
        if not (args.name and args.recipe):
            parser.error("--name and a recipe are needed")
        for system in [OURS, PEER] if args.peer else [OURS]:
            add(measure(system, args.name, args.recipe, settings, args.seeds, args.side_by_side))
    for page, content in render().items():
        page.write_text(content, encoding="utf-8")


def measure(
    system: str, name: str, recipe: str, settings: list[str], seeds: list[int], side_by_side: int
) -> dict[str, Any]:
    """Train once a seed, in a process of its own; the score is the first one that the recipe reports."""
    commit = committed()
    threads = max(1, (os.cpu_count() or 1) // side_by_side)
    with ThreadPoolExecutor(side_by_side) as pool:
        runs = list(pool.map(lambda seed: run_once(system, recipe, settings, seed, threads), seeds))
    if committed() != commit:
        sys.exit("error: the commit changed while its code was measured; nothing was written.")
    metric = runs[0]["metric"]
    start = ["nlp-transfer", "run"] if system == OURS else ["python", f"scripts/{PEER_SCRIPT.name}"]
    shown = shlex.join([*start, recipe, *(Path(s).name if "/" in s else s for s in settings)])
    return {
        "name": name,
        "recipe": recipe,
        "system": system,
        "metric": metric,
        "scores": [round(run["score"], 4) for run in runs],
        "seeds": seeds,
        "minutes": [round(run["minutes"], 1) for run in runs],
        "command": shown,
        "commit": commit,
        "machine": machine(threads, side_by_side),
        "date": time.strftime("%Y-%m-%d"),
    }


def run_once(system: str, recipe: str, settings: list[str], seed: int, threads: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder, "run")
        start = time.monotonic()
        flags = [*settings, "--training.seed", str(seed), "--run-dir", str(run_dir)]
        if system == OURS:
            command = [sys.executable, "-m", "nlp_transfer", "run", recipe, *flags]
        else:
            command = [sys.executable, str(PEER_SCRIPT), recipe, *flags]
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads)}
        subprocess.run(command, check=True, env=environment)
        scores = json.loads((run_dir / "metrics.json").read_text())
        part = scores.get("test") or scores["validation"]
        metric = next(iter(part))
        return {"metric": metric, "score": part[metric], "minutes": (time.monotonic() - start) / 60}


def add(row: dict[str, Any]) -> None:
    """Replace the row of the same name and system, or append."""
    rows = read_rows()
    same = [i for i, old in enumerate(rows) if (old["name"], old["system"]) == (row["name"], row["system"])]
    if same:
        rows[same[0]] = row
    else:
        rows.append(row)
    MEASURED.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.exists() else []
    return rows


def render() -> dict[Path, str]:
    """The pages with the tables of what was measured."""
    from nlp_transfer.reporting.tables import markdown_table

    rows = read_rows()
    table = markdown_table(HEADER, [cells(row) for row in rows])
    how = "\n".join(
        f"- {row['name']}, {row['system']}: `{row['command']}` at {row['commit']}, {row['date']}, {row['machine']}; "
        f"scores {', '.join(f'{score:.4f}' for score in row['scores'])}"
        for row in rows
    )
    bodies = (table, f"{table}\n\n{how}")
    return {
        page: filled(page.read_text(encoding="utf-8"), RESULTS, body) for page, body in zip(PAGES, bodies, strict=True)
    }


def cells(row: dict[str, Any]) -> list[str]:
    scores = row["scores"]
    spread = f" ± {statistics.stdev(scores):.4f}" if len(scores) > 1 else ""
    return [
        f"{row['name']}, `{row['recipe']}`",
        row["system"],
        row["metric"],
        f"{statistics.mean(scores):.4f}{spread}",
        ", ".join(map(str, row["seeds"])),
        f"{statistics.mean(row['minutes']):.1f}",
    ]


if __name__ == "__main__":
    main()
