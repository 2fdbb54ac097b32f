"""Whatever happens to a run or to its checkpoints, the same command goes on and ends in the same bits."""

from __future__ import annotations

import errno
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock, Timeout

import nlp_transfer as nt
from nlp_transfer import folder_locks
from nlp_transfer.errors import Interrupted
from nlp_transfer.fingerprints import hash_files
from nlp_transfer.signals import noting_stops
from nlp_transfer.training import checkpointing
from tests.processes import TIMEOUT, environment, nlp_transfer
from tests.promises import stopped_runs, survive

SAVE_EVERY = 3


def arguments(tsv: Path, checkpoint: str, num_epochs: int = 2) -> list[str]:
    settings = {"num-epochs": num_epochs, "batch-size": 8, "save-every": SAVE_EVERY, "mixed-precision": "no"}
    flags = [word for name, value in settings.items() for word in (f"--training.{name}", str(value))]
    return ["run", "text_classification", "--train", str(tsv), "--checkpoint", checkpoint, *flags]


def survived(tmp_path: Path, number: int, mode: str, words: list[str]) -> dict[str, Any]:
    program = [sys.executable, survive.__file__, str(tmp_path / "run"), str(number), mode, *words]
    done = subprocess.run(program, check=False, capture_output=True, text=True, env=environment(), timeout=1800)
    assert done.returncode == 0, done.stderr[-5000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    "number", [pytest.param(9, id="the first save"), pytest.param(999, id="every save", marks=pytest.mark.slow)]
)
def test_kill_9_at_a_file_operation_of_a_save_loses_no_run(tmp_path, tsv, checkpoint, number):
    found = survived(tmp_path, number, "every_file_operation", arguments(tsv, checkpoint))
    assert (found["failed"], found["differing"]) == ([], [])
    assert found["kills"] == 9 if number == 9 else 50 < found["kills"] < 999


@pytest.mark.parametrize("number", [3, pytest.param(200, marks=pytest.mark.slow)])
def test_kill_9_at_any_moment_of_a_run_costs_one_save_interval_at_the_most(tmp_path, tsv, checkpoint, number):
    found = survived(tmp_path, number, "random_kills", arguments(tsv, checkpoint, 4))
    assert (found["failed"], found["differing"]) == ([], [])
    assert found["sent"] == number
    assert found["finished"] > 0
    assert found["again"] <= SAVE_EVERY


@pytest.mark.parametrize("number", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_a_signal_at_any_moment_ends_in_exit_code_75_and_costs_no_step(tmp_path, tsv, checkpoint, number):
    # a second checkpoint of the same place would be an error: its rename would find the folder there
    found = survived(tmp_path, number, "random_stops", arguments(tsv, checkpoint, 4))
    assert (found["failed"], found["differing"]) == ([], [])
    assert found["sent"] == number
    assert found["finished"] > 0
    assert found["again"] == 0


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory, tsv, checkpoint) -> tuple[Path, list[str]]:
    """A run that was killed before it wrote its report, and its command without the folder."""
    words = arguments(tsv, checkpoint)
    run_dir = tmp_path_factory.mktemp("unfinished") / "run"
    done = nlp_transfer(*words, "--run-dir", run_dir)
    assert done.returncode == 0, done.stderr
    (run_dir / "metrics.json").unlink()
    return run_dir, words


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "deleted": Path.unlink,
    "emptied": lambda path: path.write_bytes(b""),
    "halved": halve,
    "one bit flipped": flip_a_bit,
}
FILES = (
    "weights.safetensors",
    "optimizer.safetensors",
    "best.safetensors",
    "state.json",
    "log.jsonl",
    "manifest.json",
)


def newest(run_dir: Path) -> Path:
    return sorted((run_dir / "checkpoints").glob("step-*"))[-1]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_is_used(unfinished, call, tmp_path, name, damage):
    made, words = unfinished
    assert sorted(path.name for path in newest(made).iterdir()) == sorted(FILES)
    run_dir = shutil.copytree(made, tmp_path / "run")
    last, before = newest(run_dir).name, sorted((run_dir / "checkpoints").glob("step-*"))[-2].name
    DAMAGES[damage](newest(run_dir) / name)
    code, _, err = call(*words, "--run-dir", run_dir)
    assert code == 0, err
    (line,) = [line for line in err.splitlines() if " is damaged: " in line]
    reason = (
        f"{name} is missing"
        if damage == "deleted"
        else r"\S+ (is not what manifest.json says|is not as it was written)"
    )
    assert re.fullmatch(rf"\S+/{last} is damaged: {reason}\. It is kept as damaged-{last}, .*", line), line
    assert name in line or name == "manifest.json"  # which of the two is wrong cannot always be told
    assert f"Going on from step {int(before.split('-')[1])} of" in err
    assert survive.result(run_dir) == survive.result(made)
    assert (run_dir / "checkpoints" / f"damaged-{last}").is_dir()


def test_without_a_whole_checkpoint_the_run_begins_anew_and_says_so(unfinished, call, tmp_path):
    made, words = unfinished
    run_dir = shutil.copytree(made, tmp_path / "run")
    for checkpoint in (run_dir / "checkpoints").glob("step-*"):
        flip_a_bit(checkpoint / "optimizer.safetensors")
    code, _, err = call(*words, "--run-dir", run_dir)
    assert code == 0, err
    assert "No whole checkpoint is left of the unfinished run" in err
    assert survive.result(run_dir) == survive.result(made)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (["--training.seed", "1"], "training.seed 0 → 1"),
        (["--training.learning-rate", "0.5"], "plan.learning_rate"),
        (["--training.batch-size", "4"], "plan.rows_per_step 8 → 4"),
        (["--lora.alpha", "3"], "adapter.alpha 32"),
        (["--lora.rank", "3"], "adapter.rank 16 → 3"),
        (["--task.label-smoothing", "0.1"], "task.label_smoothing"),
        (["--training.dropout", "0.3"], "training.dropout None → 0.3"),
    ],
)
def test_another_setting_is_refused_by_name_and_overwrite_begins_anew(unfinished, call, tmp_path, change, named):
    made, words = unfinished
    run_dir = shutil.copytree(made, tmp_path / "run")
    flags = dict(zip(words[2::2], words[3::2], strict=True)) | dict([change])
    changed = [*words[:2], *(word for pair in flags.items() for word in pair), "--run-dir", str(run_dir)]
    before = survive.result(made)
    code, _, err = call(*changed)
    assert code == 2
    assert named in err.splitlines()[-1]
    assert survive.result(run_dir) == before  # nothing was touched
    code, _, err = call(*changed, "--overwrite")
    assert code == 0, err
    assert "Going on" not in err


def test_other_data_are_refused(unfinished, call, tmp_path):
    made, words = unfinished
    run_dir = shutil.copytree(made, tmp_path / "run")
    lines = Path(words[3]).read_text().splitlines()
    Path("other.tsv").write_text("\n".join(lines[:-1]) + "\n")
    code, _, err = call(*words[:3], "other.tsv", *words[4:], "--run-dir", run_dir)
    assert code == 2
    assert "holds an unfinished run that was made of something else" in err
    assert "other train data" in err.splitlines()[-1]


def test_a_setting_that_leaves_the_result_alone_is_printed(unfinished, call, tmp_path):
    made, words = unfinished
    run_dir = shutil.copytree(made, tmp_path / "run")
    shutil.rmtree(newest(run_dir))
    other = ["--training.keep-checkpoints", "3", "--training.gradient-accumulation-steps", "2"]
    halved = [word if word != "8" else "4" for word in words]
    code, _, err = call(*halved, *other, "--run-dir", run_dir)
    assert code == 0, err
    (line,) = [line for line in err.splitlines() if line.startswith("Going on")]
    assert "batch_size 8 → 4, gradient_accumulation_steps 1 → 2 (the result may differ in rounding and in what" in line
    assert "keep_checkpoints 2 → 3 (the result stays the same)" in line


FULL = re.compile(
    r"error: \S*checkpoints/step-\d+-epoch-\d+: .+ \([\d,]+ bytes needed, [\d,]+ free\)\. The checkpoint before, .*"
)


def check_full_disk(output: str, run_dir: Path) -> None:
    (line,) = [line for line in output.splitlines() if line.startswith("error")]
    assert FULL.fullmatch(line), line
    assert "Traceback" not in output


def test_a_file_that_may_not_grow_is_one_line_and_after_that_the_same_command_goes_on(tmp_path, tsv, checkpoint):
    run_dir = tmp_path / "run"
    words = [*arguments(tsv, checkpoint), "--run-dir", str(run_dir)]
    limited = (
        "import resource, sys; from nlp_transfer import cli; from nlp_transfer.training.saving import Saving\n"
        "save = Saving.save\n"
        "def limited(saving):\n"
        "    save(saving)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))\n"
        "Saving.save = limited\n"
        "sys.exit(cli.main())"
    )
    first = subprocess.run(
        [sys.executable, "-c", limited, *words],
        check=False,
        capture_output=True,
        text=True,
        env=environment(),
        timeout=TIMEOUT,
    )
    assert first.returncode == 1
    check_full_disk(first.stderr, run_dir)
    assert [path.name for path in (run_dir / "checkpoints").glob("[!.]*")] == ["step-00000003-epoch-0000"]
    again = nlp_transfer(*words)
    assert again.returncode == 0, again.stderr
    assert "Going on from step 3 of" in again.stderr


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_after_that_the_same_command_goes_on(tmp_path, tsv, checkpoint):
    disk = tmp_path / "disk"
    disk.mkdir()
    own = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec"]
    if not shutil.which("unshare") or subprocess.run([*own, f"mount -t tmpfs tmpfs {disk}"], check=False).returncode:
        pytest.skip("this system lets nobody mount a small disk")
    words = " ".join([sys.executable, "-m", "nlp_transfer", *arguments(tsv, checkpoint), "--run-dir", f"{disk}/run"])
    script = f"""
    mount -t tmpfs -o size=400k tmpfs {disk}
    {words} 2> first.txt || echo $? > code.txt
    ls {disk}/run/checkpoints > left.txt
    mount -o remount,size=20m {disk}
    {words} 2> second.txt
    """
    done = subprocess.run([*own, script], check=False, cwd=tmp_path, env=environment(), timeout=TIMEOUT)
    assert done.returncode == 0, (tmp_path / "second.txt").read_text()
    assert (tmp_path / "code.txt").read_text() == "1\n"
    check_full_disk((tmp_path / "first.txt").read_text(), disk)
    assert (tmp_path / "left.txt").read_text() == "step-00000003-epoch-0000\n"
    assert "Going on from step 3 of" in (tmp_path / "second.txt").read_text()


LIMITED = """
import resource, sys
from nlp_transfer import cli
def limited(module, name, when):
    old = getattr(module, name)
    def new(*args):
        if when(*args):
            resource.setrlimit(resource.RLIMIT_FSIZE, (200, resource.RLIM_INFINITY))
        return old(*args)
    setattr(module, name, new)
"""


@pytest.mark.parametrize(
    ("limit", "file"),
    [
        pytest.param(
            "from nlp_transfer.training import log; limited(log, 'append_line', lambda p, l: '7,' in l)",
            "log.jsonl",
            marks=pytest.mark.slow,
        ),
        ("from nlp_transfer import artifacts; limited(artifacts, 'write_model', lambda *_: True)", "model"),
        pytest.param(
            "from nlp_transfer import run_folder as r; limited(r, 'write_lines', lambda *_: True)",
            "predictions.jsonl",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_so_is_a_disk_that_is_full_in_another_file_of_the_run(tmp_path, tsv, checkpoint, limit, file):
    words = [*arguments(tsv, checkpoint), "--run-dir", str(tmp_path / "run")]
    program = [sys.executable, "-c", f"{LIMITED}{limit}\nsys.exit(cli.main())", *words]
    first = subprocess.run(program, check=False, capture_output=True, text=True, env=environment(), timeout=TIMEOUT)
    assert first.returncode == 1, first.stderr
    (line,) = [line for line in first.stderr.splitlines() if line.startswith("error")]
    assert re.match(rf"error: \S+/run/{file}: .*File too large.* \([\d,]+ bytes needed, [\d,]+ free\)", line), line
    again = nlp_transfer(*words)
    assert again.returncode == 0, again.stderr


def test_the_same_seed_gives_the_same_bits(unfinished, call, tmp_path):
    made, words = unfinished
    code, _, err = call(*words, "--run-dir", tmp_path / "again")
    assert code == 0, err
    assert survive.result(tmp_path / "again") == survive.result(made)


def test_a_finished_run_is_refused_by_fit_itself(unfinished, checkpoint, tsv, tmp_path):
    stopped_runs.train(checkpoint, tsv, {}, tmp_path)
    (tmp_path / "metrics.json").write_text("{}")
    before = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    with pytest.raises(nt.ConfigError, match="holds a finished run"):
        stopped_runs.train(checkpoint, tsv, {}, tmp_path)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == before


@pytest.fixture
def lock(tmp_path, monkeypatch):
    """As another process would hold it."""
    monkeypatch.setattr(folder_locks, "PATIENCE", 0.1)
    path = tmp_path / folder_locks.LOCK_FILE
    path.parent.mkdir()
    return FileLock(path, timeout=0)


def test_a_second_run_in_the_same_folder_is_refused(checkpoint, tsv, tmp_path, lock):
    with lock, pytest.raises(nt.ConfigError, match="Another run is at work"):
        stopped_runs.train(checkpoint, tsv, {}, tmp_path)
    stopped_runs.train(checkpoint, tsv, {}, tmp_path)


def test_a_second_command_changes_nothing_and_notes_nothing_in_the_folder(call, checkpoint, tsv, tmp_path, lock):
    with lock:
        code, _, err = call(*arguments(tsv, checkpoint), "--run-dir", tmp_path)
        assert code == 2
        assert "Another run is at work" in err
        with pytest.raises(Interrupted), noting_stops(tmp_path):
            raise Interrupted("by SIGINT")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]
    with pytest.raises(Interrupted), noting_stops(tmp_path):  # the command's own folder, before the run begins
        raise Interrupted("by SIGINT")
    assert (tmp_path / "stopped.json").is_file()


def test_the_folder_is_the_runs_own_to_the_end(call, checkpoint, tsv, tmp_path, lock, monkeypatch):
    """Also while it is evaluated and saved, when training is over."""
    seen = []

    evaluate = nt.evaluate

    def look(*args):
        with pytest.raises(Timeout):
            lock.acquire()
        seen.append(args)
        return evaluate(*args)

    monkeypatch.setattr(nt, "evaluate", look)
    code, _, err = call(*arguments(tsv, checkpoint), "--run-dir", tmp_path)
    assert code == 0, err
    assert len(seen) == 1
    with lock:
        pass


def test_a_file_that_somebody_added_does_no_harm(unfinished, call, tmp_path):
    made, words = unfinished
    run_dir = shutil.copytree(made, tmp_path / "run")
    (newest(run_dir) / ".DS_Store").write_text("of a desktop")
    code, _, err = call(*words, "--run-dir", run_dir)
    assert code == 0, err
    assert "is damaged" not in err


def test_an_error_of_the_machine_is_not_taken_for_damage(unfinished, call, tmp_path, monkeypatch):
    made, words = unfinished
    run_dir = shutil.copytree(made, tmp_path / "run")
    before = sorted(path.name for path in (run_dir / "checkpoints").iterdir())

    def broken(paths):
        raise OSError(errno.EIO, "Input/output error", str(paths[0]))

    monkeypatch.setattr(checkpointing, "hash_files", broken)
    code, _, err = call(*words, "--run-dir", run_dir)
    assert code == 1
    assert re.search(r"error: \S+safetensors: Input/output error$", err.strip())
    assert sorted(path.name for path in (run_dir / "checkpoints").iterdir()) == before


def test_what_was_set_aside_stays_when_the_run_begins_anew(unfinished, call, tmp_path):
    made, words = unfinished
    run_dir = shutil.copytree(made, tmp_path / "run")
    for checkpoint in (run_dir / "checkpoints").glob("step-*"):
        (checkpoint / "state.json").unlink()
    assert call(*words, "--run-dir", run_dir)[0] == 0
    assert len(list((run_dir / "checkpoints").glob("damaged-*"))) == 2


def test_a_checkpoint_of_another_format_is_refused(unfinished, call, tmp_path):
    made, words = unfinished
    run_dir = shutil.copytree(made, tmp_path / "run")
    folder = newest(run_dir)
    state = json.loads((folder / "state.json").read_text()) | {"format": 99}
    (folder / "state.json").write_text(json.dumps(state))
    hashes = {path.name: hash_files([path]) for path in folder.iterdir() if path.name != "manifest.json"}
    (folder / "manifest.json").write_bytes(checkpointing.manifest_of(hashes))
    code, _, err = call(*words, "--run-dir", run_dir)
    assert code == 2
    assert "has format 99, and this version reads format 1" in err
