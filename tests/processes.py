"""Start commands in processes of their own, as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
TIMEOUT = 300
FSDP2 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
ZERO = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"}
NO_DEEPSPEED = pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is not installed")


def environment() -> dict[str, str]:
    """Offline, one thread (several processes share the machine), and the project importable from anywhere."""
    return {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }


def python(*args: object, cwd: Path | None = None, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``python ARGS`` to its end, whatever its exit code."""
    words = [sys.executable, *map(str, args)]
    return subprocess.run(
        words, check=False, capture_output=True, text=True, input=stdin, cwd=cwd, env=environment(), timeout=TIMEOUT
    )


def nlp_transfer(*args: object, cwd: Path | None = None, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``nlp-transfer ARGS``."""
    return python("-m", "nlp_transfer", *args, cwd=cwd, stdin=stdin)


def launch_words(
    num_processes: int, script: Path, *args: object, variables: Mapping[str, str] | None = None
) -> tuple[list[str], dict[str, str]]:
    """The command of ``accelerate launch`` for processes on the CPU, and its environment.

    ``--cpu`` would start one process, whatever ``--num_processes`` says; ``--multi_gpu`` is accelerate's name for its
    launcher of several, and ACCELERATE_USE_CPU makes them one group without a GPU.
    """
    several = ["--multi_gpu"] if num_processes > 1 else []
    flags = [*several, "--num_processes", num_processes, "--num_machines", 1, "--mixed_precision", "no"]
    flags += ["--dynamo_backend", "no", "--main_process_port", 0]
    words = [sys.executable, "-m", "accelerate.commands.launch", *map(str, flags), str(script), *map(str, args)]
    return words, environment() | {"ACCELERATE_USE_CPU": "true"} | dict(variables or {})


def launch(
    num_processes: int,
    script: Path,
    *args: object,
    cwd: Path | None = None,
    variables: Mapping[str, str] | None = None,
) -> str:
    """Run it to its end; gives what was printed."""
    words, own = launch_words(num_processes, script, *args, variables=variables)
    done = subprocess.run(words, check=False, capture_output=True, text=True, cwd=cwd, env=own, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr[-10_000:]
    return done.stdout + done.stderr
