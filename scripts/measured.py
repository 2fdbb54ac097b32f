"""What the scripts that measure say of how they did, and where on a page it stands. Nothing to run."""

from __future__ import annotations

import json
import os
import platform
import resource
import shlex
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parent.parent
BF16_FLAGS = {"amx_bf16": "AMX bf16", "avx512_bf16": "AVX-512 bf16"}


def filled(page: str, name: str, body: str) -> str:
    """The text of a page with ``body`` between its marks of that name."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, rest = page.split(begin)
    return f"{before}{begin}\n\n{body}\n\n{end}{rest.split(end)[1]}"


def fill(page: Path, name: str, body: str) -> None:
    page.write_text(filled(page.read_text("utf-8"), name, body), "utf-8")


def committed() -> str:
    """The commit that is measured; other code than that may not be in the tree."""
    if changed := git("status", "--porcelain", "--", "nlp_transfer", "recipes/*.py", "scripts"):
        sys.exit(f"error: commit first, so that the row names the code that is measured:\n{changed}")
    return git("rev-parse", "--short", "HEAD")


def git(*args: str) -> str:
    done = subprocess.run(["git", *args], check=True, capture_output=True, text=True, cwd=PROJECT)
    return done.stdout.strip()


def command_line() -> str:
    """As it was typed, whatever folder the project lies in."""
    return shlex.join(["python", f"scripts/{Path(sys.argv[0]).name}", *sys.argv[1:]])


def machine(threads: int, side_by_side: int) -> str:
    """Cores and name of the processor, or the GPU, and what else the script ran there."""
    import torch

    beside = f", {side_by_side} runs side by side" if side_by_side > 1 else ""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name() + beside
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    flags = next((line for line in lines if line.startswith("flags")), "")
    bf16 = next((f", {title}" for flag, title in BF16_FLAGS.items() if flag in flags), "")
    return f"{threads} of {os.cpu_count()} cores of an {name}{bf16}, no GPU{beside}"


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The median, with the smallest and the largest."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def refuse(problem: str | None) -> None:
    """A wrong argument ends the script before anything is measured."""
    if problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)


def missing(files: Iterable[Path]) -> str | None:
    """Of the first file that is not there."""
    return next((f"no such file: {file}" for file in files if not file.is_file()), None)


def not_positive(config: Any, *names: str) -> str | None:
    """Of the first of these numbers that is below 1."""
    wrong = ((name, value) for name in names for value in numbers(getattr(config, name)) if value < 1)
    return next((f"--{name.replace('_', '-')} must be at least 1, got {value}" for name, value in wrong), None)


def numbers(value: int | Sequence[int]) -> Sequence[int]:
    return [value] if isinstance(value, int) else value


def peak_mib() -> float:
    """The most that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_a_process(script: str, task: dict[str, Any], threads: int, **variables: str) -> dict[str, float]:
    """What ``script --work task`` prints, as JSON in its last line."""
    own = {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(PROJECT), "TOKENIZERS_PARALLELISM": "false"}
    words = [sys.executable, script, "--work", json.dumps(task)]
    env = {**os.environ, **own, **variables}
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, env=env, check=False)
    if done.returncode:
        sys.exit(f"error: {Path(script).name} could not measure {task}; its process says why above.")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result
