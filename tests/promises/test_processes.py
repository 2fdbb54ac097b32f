"""Several processes: every row is scored once, sharded weights learn the same, and a lost process ends the run."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.processes import FSDP2, NO_DEEPSPEED, PROJECT, ZERO, launch, launch_words, nlp_transfer
from tests.promises import evaluate_alone

pytestmark = pytest.mark.multiprocess

MOST_ROWS = 40
PROCESS_TIMEOUT = 4
STAGE_1 = {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "1"}
RECIPE = PROJECT / "recipes" / "text_classification.py"


@pytest.mark.parametrize("number", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_every_row_is_scored_once_whatever_the_number_of_rows(checkpoint, tsv, tmp_path, number):
    alone = json.loads(json.dumps(evaluate_alone.scores(checkpoint, str(tsv), MOST_ROWS)))
    launch(number, Path(evaluate_alone.__file__), checkpoint, tsv, MOST_ROWS, tmp_path)
    for process in range(number):
        found = json.loads((tmp_path / f"{process}.json").read_text())
        assert found["processes"] == number
        assert found["scores"] == alone  # to the last bit


def settings(tsv: Path, checkpoint: str, run_dir: Path, **training: object) -> list[str]:
    words = ["--train", str(tsv), "--checkpoint", checkpoint, "--run-dir", str(run_dir)]
    options = {"mixed-precision": "no", "batch-size": 4, "num-epochs": 2} | training
    return words + [word for name, value in options.items() for word in (f"--training.{name}", str(value))]


@pytest.mark.parametrize(
    ("kind", "variables"),
    [
        pytest.param("sharded", FSDP2, id="FSDP2"),
        pytest.param("DeepSpeed", ZERO, id="ZeRO 2", marks=NO_DEEPSPEED),
        pytest.param("DeepSpeed", ZERO | STAGE_1, id="ZeRO 1", marks=[NO_DEEPSPEED, pytest.mark.slow]),
    ],
)
def test_what_is_spread_over_processes_learns_what_whole_copies_learn(checkpoint, tsv, tmp_path, kind, variables):
    for name, configured in (("whole", {}), ("sharded", variables)):
        options = {"dropout": 0, "batch-size": 2, "gradient-accumulation-steps": 2}
        launch(2, RECIPE, *settings(tsv, checkpoint, tmp_path / name, **options), variables=configured)
    whole, sharded = (
        load_file(tmp_path / name / "model" / "adapter_model.safetensors") for name in ("whole", "sharded")
    )
    assert whole.keys() == sharded.keys()
    assert max(float((whole[name] - sharded[name]).abs().max()) for name in whole) <= 1e-5
    state = json.loads(next((tmp_path / "sharded").glob("checkpoints/*/state.json")).read_text())
    assert state["made_with"]["passes"][kind] is True
    done = nlp_transfer("predict", tmp_path / "sharded" / "model", "a text")
    assert done.returncode == 0, done.stderr


def process_of(rank: int, run_dir: Path) -> int:
    """The process of this rank that trains into ``run_dir``."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words, variables = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
        except OSError:
            continue
        if str(run_dir).encode() in words and f"\0RANK={rank}\0".encode() in variables:
            return int(folder.name)
    raise AssertionError(f"no process of rank {rank}")


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes as Linux lists them")
@pytest.mark.parametrize(
    ("rank", "kind"),
    [
        pytest.param(1, signal.SIGSTOP, id="1 frozen"),
        pytest.param(0, signal.SIGSTOP, id="0 frozen", marks=pytest.mark.slow),
        pytest.param(1, signal.SIGKILL, id="1 killed", marks=pytest.mark.slow),
        pytest.param(0, signal.SIGKILL, id="0 killed", marks=pytest.mark.slow),
    ],
)
def test_a_dead_or_frozen_process_ends_the_run_by_name_and_the_command_goes_on(checkpoint, tsv, tmp_path, kind, rank):
    run_dir, output = tmp_path / "run", tmp_path / "output.txt"
    flags = settings(
        tsv, checkpoint, run_dir, **{"num-epochs": 15, "process-timeout": PROCESS_TIMEOUT, "save-every": 5}
    )
    words, variables = launch_words(2, RECIPE, *flags)
    with output.open("w") as file, subprocess.Popen(words, stdout=file, stderr=file, env=variables) as launcher:
        while "epoch 2:" not in output.read_text():
            assert launcher.poll() is None, output.read_text()
            time.sleep(0.05)
        lost = process_of(rank, run_dir)
        since = time.monotonic()
        os.kill(lost, kind)
        assert launcher.wait(timeout=60) == 1
        assert time.monotonic() - since <= PROCESS_TIMEOUT + 10
    lines = [line for line in output.read_text().splitlines() if "error: " in line]
    assert len(lines) == 1, lines
    assert re.fullmatch(
        rf"(\[process 1\] )?error: Process {rank} of 2 \(pid {lost} on \S+\) has given no sign .*", lines[0]
    )
    with pytest.raises(ProcessLookupError):
        os.kill(lost, 0)  # it is gone too
    again = subprocess.run(words, check=False, capture_output=True, text=True, env=variables, timeout=300)
    assert again.returncode == 0, again.stderr[-3000:]
    assert "Going on from step" in again.stderr


def test_processes_with_other_data_are_refused_by_name(checkpoint, tsv, tmp_path):
    """Gradients are summed, so that the weights would stay equal and nobody would ever know."""
    lines = tsv.read_text().splitlines()
    other = tmp_path / "other.tsv"
    other.write_text("\n".join([lines[0], *(f"so {line}" for line in lines[1:])]) + "\n")
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys\n"
        "import nlp_transfer as nt\n"
        "from pathlib import Path\n"
        "from tests.promises import stopped_runs\n"
        "try:\n"
        "    stopped_runs.train(sys.argv[1], Path(sys.argv[2 + int(os.environ['RANK'])]), {}, Path(sys.argv[4]))\n"
        "except nt.ConfigError as error:\n"
        "    print(f'refused: {error}')\n"
    )
    said = launch(2, program, checkpoint, tsv, other, tmp_path / "run")
    assert "refused: Process 1 was started with other settings or data than process 0: other train data; " in said


@pytest.mark.slow
def test_a_run_that_was_suspended_as_a_whole_goes_on(checkpoint, tsv, tmp_path):
    run_dir, output = tmp_path / "run", tmp_path / "output.txt"
    words, variables = launch_words(
        2, RECIPE, *settings(tsv, checkpoint, run_dir, **{"num-epochs": 12, "process-timeout": 2})
    )
    with output.open("w") as file, subprocess.Popen(words, stdout=file, stderr=file, env=variables) as launcher:
        while "epoch 2:" not in output.read_text():
            assert launcher.poll() is None, output.read_text()
            time.sleep(0.05)
        both = [process_of(rank, run_dir) for rank in (0, 1)]
        for process in both:
            os.kill(process, signal.SIGSTOP)
        time.sleep(4)
        for process in both:
            os.kill(process, signal.SIGCONT)
            time.sleep(0.3)
        assert launcher.wait(timeout=120) == 0, output.read_text()
