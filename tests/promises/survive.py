"""Start a run again and again, and stop it: a program for the tests of ``test_survival.py``.

    python survive.py RUN_DIR NUMBER MODE ARGUMENT...

MODE is one of the functions at the end. What it found is printed as a line of JSON. The program loads everything once
and forks for every start, which is as good as a new process and takes a tenth of the time.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch  # noqa: F401 - loaded before the fork
import transformers  # noqa: F401

from nlp_transfer import artifacts, cli, run_folder  # noqa: F401
from nlp_transfer.bundled_recipes import find_recipe, load_recipe
from nlp_transfer.training import fit  # noqa: F401
from nlp_transfer.training.checkpointing import checkpoints_of, damage
from nlp_transfer.training.log import METRICS_FILE

Arguments = list[str]
WRITES = os.O_WRONLY | os.O_RDWR
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir"}


def start(arguments: Arguments, output: Path, before: Callable[[], None] = lambda: None) -> int:
    """Fork and run the command there; gives the process."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        with output.open("ab", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        before()
        sys.argv = ["nlp-transfer", *arguments]
        code = cli.main()
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else 1
    except BaseException:  # noqa: BLE001 - forked: it must not get any further
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def wait(pid: int) -> int:
    """The exit code; -9 for SIGKILL, as ``subprocess`` has it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def result(run_dir: Path) -> dict[str, str]:
    """What must come out the same, bit for bit."""
    last = sorted((run_dir / "checkpoints").glob("step-*"))[-1]
    files = ["log.jsonl", "predictions.jsonl", "model/adapter_model.safetensors"]
    own = [last / "weights.safetensors", last / "optimizer.safetensors", last / "best.safetensors"]
    found = {name: (run_dir / name).read_bytes().hex() for name in files}
    return found | {f"{last.name}/{path.name}": path.read_bytes().hex() for path in own}


def steps_to_do_again(run_dir: Path) -> int:
    """How many steps the log has seen after the last whole checkpoint."""
    log = run_dir / "log.jsonl"
    seen = re.findall(r'^\{"step": (\d+)', log.read_text(), re.M) if log.exists() else []
    whole = [path.name for path in checkpoints_of(run_dir) if damage(path) is None]
    saved = int(whole[-1].split("-")[1]) if whole else 0
    return max(0, int(seen[-1]) - saved) if seen else 0


def killing_hook(folder: Path, number: int) -> Callable[[str, tuple[Any, ...]], None]:
    """Kill this process just before its ``number``-th change to ``folder``."""
    count = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        is_change = event in CHANGES or (event == "open" and isinstance(args[2], int) and args[2] & WRITES)
        if is_change and isinstance(args[0], str | os.PathLike) and folder in Path(os.fspath(args[0])).parents:
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

    return hook


def every_file_operation(run_dir: Path, limit: int, arguments: Arguments) -> dict[str, Any]:
    """Kill at the first change to the checkpoints, resume; kill at the second, resume; ... until there are no more."""
    reference = undisturbed(run_dir, arguments)
    failed, differing, kills = [], [], 0
    for number in range(1, limit + 1):
        shutil.rmtree(run_dir, ignore_errors=True)
        output = run_dir.with_suffix(".txt")
        output.write_bytes(b"")
        hook = killing_hook(run_dir / "checkpoints", number)
        if wait(start(arguments, output, lambda hook=hook: sys.addaudithook(hook))) == 0:
            break
        kills += 1
        if wait(start(arguments, output)) != 0:
            failed.append([number, output.read_text()[-2000:]])
        elif result(run_dir) != reference:
            differing.append(number)
    return {"kills": kills, "failed": failed, "differing": differing}


def random_kills(run_dir: Path, number: int, arguments: Arguments) -> dict[str, Any]:
    """``number`` times kill -9 at a random moment; a run that gets to its end is compared, and the next one begins."""
    return random_signals(run_dir, number, arguments, [signal.SIGKILL], -signal.SIGKILL)


def random_stops(run_dir: Path, number: int, arguments: Arguments) -> dict[str, Any]:
    """The same with the signals that ask to stop."""
    return random_signals(
        run_dir, number, arguments, [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP], 75
    )


def random_signals(
    run_dir: Path, number: int, arguments: Arguments, kinds: list[signal.Signals], expected: int
) -> dict[str, Any]:
    since = time.monotonic()
    reference = undisturbed(run_dir, arguments)
    length, draw, output = time.monotonic() - since, random.Random(0), run_dir.with_suffix(".txt")
    found: dict[str, Any] = {"sent": 0, "failed": [], "finished": 0, "differing": [], "again": 0}
    while found["sent"] < number or found["finished"] == 0:
        output.write_bytes(b"")
        pid = start(arguments, output)
        wait_for_output(output)
        time.sleep(draw.uniform(0, length))
        if found["sent"] < number:
            os.kill(pid, draw.choice(kinds))
        code = wait(pid)
        found["sent"] += code == expected
        if code == -signal.SIGKILL and (run_dir / METRICS_FILE).exists():
            code = 0  # all of the run was written, and only its process was still there to be killed
        if code == expected:
            found["again"] = max(found["again"], steps_to_do_again(run_dir))
            continue
        if code != 0:
            found["failed"].append([found["sent"], code, output.read_text()[-2000:]])
        elif result(run_dir) != reference:
            found["differing"].append(found["finished"])
        found["finished"] += code == 0
        shutil.rmtree(run_dir)
    return found


def wait_for_output(output: Path) -> None:
    """Before its first line a program is only being loaded."""
    while output.stat().st_size == 0:
        time.sleep(0.005)


def undisturbed(run_dir: Path, arguments: Arguments) -> dict[str, str]:
    output = run_dir.with_suffix(".txt")
    output.write_bytes(b"")
    shutil.rmtree(run_dir, ignore_errors=True)
    code = wait(start(arguments, output))
    assert code == 0, output.read_text()
    found = result(run_dir)
    shutil.rmtree(run_dir)
    return found


if __name__ == "__main__":
    folder, how_many, mode, *rest = sys.argv[1:]
    load_recipe(find_recipe(rest[1]))
    print(json.dumps(globals()[mode](Path(folder), int(how_many), [*rest, "--run-dir", folder])))
