"""Stops in awkward moments, and readers that go away: what is written is whole, and the exit code tells the truth."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pytest
from filelock import FileLock

import nlp_transfer as nt
from nlp_transfer import folder_locks, run_folder, signals
from nlp_transfer.artifacts import put_in_place, refuse_existing
from nlp_transfer.errors import Interrupted
from nlp_transfer.fingerprints import own_code_sha256
from nlp_transfer.training import checkpointing, fit, saving
from nlp_transfer.training.state import Progress
from tests.processes import TIMEOUT, environment, launch
from tests.promises import stopped_runs


def interrupting(function, at_call):
    """Send Ctrl-C before that call."""
    calls = []

    def called(*args, **kwargs):
        calls.append(1)
        if len(calls) == at_call:
            os.kill(os.getpid(), signal.SIGINT)
        return function(*args, **kwargs)

    return called


def test_ctrl_c_that_does_not_wait_for_the_end_of_a_step_saves_no_half_of_it(checkpoint, tsv, tmp_path, monkeypatch):
    whole = stopped_runs.outcome(stopped_runs.train(checkpoint, tsv, {}, tmp_path / "whole"), tmp_path / "whole")
    monkeypatch.setattr(signals, "PATIENCE", -1)  # as if it were the second one
    # the weights have changed, and the run has not yet noted it
    with mock.patch.object(Progress, "count", interrupting(Progress.count, 6)), pytest.raises(nt.Interrupted):
        stopped_runs.train(checkpoint, tsv, {}, tmp_path / "stopped")
    assert [path.name for path in (tmp_path / "stopped").glob("checkpoints/step-*")] == ["step-00000004-epoch-0000"]
    again = stopped_runs.train(checkpoint, tsv, {}, tmp_path / "stopped")
    assert stopped_runs.outcome(again, tmp_path / "stopped") == whole


def test_no_signal_is_swallowed_at_the_end_of_a_run(checkpoint, tsv, tmp_path):
    last_look = interrupting(fit.Session._stops_early, 4)  # before the first step, and after each of three epochs
    with mock.patch.object(stopped_runs.TrappedSession, "_stops_early", last_look), pytest.raises(nt.Interrupted):
        stopped_runs.train(checkpoint, tsv, {}, tmp_path)


RUN = ["-m", "nlp_transfer", "run", "text_classification"]


def test_a_reader_who_goes_away_ends_no_run_and_a_stop_after_that_is_one(checkpoint, tsv, tmp_path):
    """As in `... 2>&1 | tee log`, when Ctrl-C ends tee too."""
    run_dir = tmp_path / "run"
    settings = ["--training.num-epochs", "40", "--training.batch-size", "4", "--training.mixed-precision", "no"]
    words = [
        sys.executable,
        *RUN,
        "--train",
        str(tsv),
        "--checkpoint",
        checkpoint,
        "--run-dir",
        str(run_dir),
        *settings,
    ]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdout=pipe, stderr=subprocess.STDOUT, env=environment()) as running:
        running.stdout.readline()
        running.stdout.close()
        while not list(run_dir.glob("checkpoints/step-*-epoch-0002")):
            assert running.poll() is None
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        assert running.wait(TIMEOUT) == 75
    assert (run_dir / "stopped.json").exists()
    (last_step, *_) = reversed((run_dir / "log.jsonl").read_text().splitlines())
    last = sorted(path.name for path in run_dir.glob("checkpoints/step-*"))[-1]
    assert last.startswith(f"step-{json.loads(last_step)['step']:08d}")


@pytest.mark.multiprocess
def test_the_time_out_of_processes_holds_where_fit_is_the_first_to_ask_for_them(checkpoint, tsv, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import os\nimport sys\n"
        "from pathlib import Path\n"
        "from tests.promises import stopped_runs\n"
        "from nlp_transfer.training import watchdog\n"
        "stopped_runs.train(sys.argv[1], Path(sys.argv[2]), {'process_timeout': 33}, Path(sys.argv[3]))\n"
        "Path(f'{sys.argv[4]}-{os.environ[\"RANK\"]}').write_text(str([one.timeout for one in watchdog.RUNNING]))\n"
    )
    launch(2, program, checkpoint, tsv, tmp_path / "run", tmp_path / "watched")
    assert [(tmp_path / f"watched-{rank}").read_text() for rank in (0, 1)] == ["[33]", "[33]"]


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs terminals as POSIX has them")
def test_a_terminal_that_is_closed_leads_to_the_same_end(tmp_path):
    program = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from nlp_transfer.launching import guarded\n"
        "from nlp_transfer.reporting.progress import say\n"
        "from nlp_transfer.signals import exit_with, stop_at_once, stop_when_asked\n"
        "os.close(os.open(os.ttyname(0), os.O_RDWR))\n"  # it is this session's from here on
        "def work():\n"
        "    with stop_when_asked('finishing this step.') as received:\n"
        "        Path(sys.argv[1]).write_text('ready')\n"
        "        while received.name is None:\n"
        "            time.sleep(0.01)\n"
        "        say('a step was finished')\n"
        "        received.stop()\n"
        "with stop_at_once():\n"
        "    code = guarded(work)\n"
        "exit_with(code)\n"
    )
    ours, theirs = os.openpty()
    words = [sys.executable, "-c", program, tmp_path / "ready"]
    with subprocess.Popen(
        words, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, env=environment()
    ) as process:
        os.close(theirs)
        while not (tmp_path / "ready").exists():
            assert process.poll() is None
            time.sleep(0.01)
        os.close(ours)
        assert process.wait(60) == 75


def test_a_run_that_cannot_begin_lets_go_of_its_folder(tmp_path, tsv, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(run_folder, "write_json", full)
    splits = nt.read_text_classification(nt.TextData(train=str(tsv)))
    with pytest.raises(OSError, match="No space left"):
        nt.start_run(tmp_path / "run", nt.TextData(train=str(tsv)), splits, overwrite=False)
    with FileLock(tmp_path / "run" / folder_locks.LOCK_FILE, timeout=0):
        pass


def test_two_threads_do_not_train_in_one_folder(tmp_path):
    with saving.alone_in(tmp_path):
        with pytest.raises(nt.ConfigError, match="Another run of this process"), saving.alone_in(tmp_path):
            pass
        assert folder_locks.is_taken(tmp_path)
    assert not folder_locks.is_taken(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_said_and_stops_nobody(tmp_path, monkeypatch, capsys, number):
    fcntl = pytest.importorskip("fcntl", reason="the locks of POSIX")

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    for _ in range(2):  # the second time after a kill, maybe on another machine
        with saving.alone_in(tmp_path):
            pass
    assert "files cannot be locked: see that no other run writes there" in capsys.readouterr().err
    saving.take_folder(tmp_path)
    with saving.alone_in(tmp_path):  # said once a run
        pass
    assert capsys.readouterr().err.count("cannot be locked") == 1
    folder_locks.leave(tmp_path)


def test_overwrite_replaces_a_run_of_another_format(checkpoint, tsv, tmp_path, monkeypatch):
    with monkeypatch.context() as other_version:
        other_version.setattr("nlp_transfer.training.resume.FORMAT", 0)
        stopped_runs.train(checkpoint, tsv, {}, tmp_path)
    with pytest.raises(nt.ConfigError, match=r"has format 0, .* or pass --overwrite"):
        stopped_runs.train(checkpoint, tsv, {}, tmp_path)
    stopped_runs.train(checkpoint, tsv, {}, tmp_path, overwrite=True)


@pytest.fixture
def events(monkeypatch):
    """What is synced and renamed: a power cut leaves what fsync has waited for, and nothing else for certain."""
    events: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def noting_fsync(file):
        events.append(f"sync {Path(os.readlink(f'/proc/self/fd/{file}')).name}")
        fsync(file)

    def noting_rename(path, target):
        events.append(f"rename {path.name}")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(Path, "rename", noting_rename)
    return events


posix = pytest.mark.skipif(os.name == "nt", reason="folders are synced on POSIX")


@posix
def test_a_checkpoint_is_on_the_disk_before_it_has_its_name_and_its_name_before_older_ones_go(tmp_path, events):
    made = checkpointing.Checkpoint(weights={}, optimizer={}, best=None, state={}, log=b"")
    for name in ("step-1", "step-2"):
        checkpointing.write_checkpoint(made, tmp_path / "run" / "checkpoints" / name, keep=1)
    files = [f"sync {name}" for name in (*checkpointing.NEEDED, checkpointing.MANIFEST_FILE)]
    for name, then in (("step-1", []), ("step-2", ["rename step-1"])):
        staged = f".{name}.part"
        expected = [*files, f"sync {staged}", f"rename {staged}", "sync checkpoints", "sync run", *then]
        assert events[: len(expected)] == expected
        del events[: len(expected)]
    assert events == []


@posix
def test_a_model_is_on_the_disk_before_it_takes_the_place_of_the_old_one(tmp_path, events):
    for name in ("old", "new"):
        (tmp_path / "staged").mkdir()
        (tmp_path / "staged" / "weights").write_text(name)
        events.clear()
        put_in_place(tmp_path / "staged", tmp_path / "model")
    assert events == ["sync weights", "sync staged", "rename model", "rename staged", f"sync {tmp_path.name}"]
    assert [(path.name, (path / "weights").read_text()) for path in tmp_path.iterdir()] == [("model", "new")]


def test_a_signal_in_between_leaves_the_old_model_in_its_place(tmp_path, monkeypatch):
    for name in ("model", "staged"):
        (tmp_path / name).mkdir()
    (tmp_path / "model" / "weights").write_text("old")
    rename = Path.rename

    def interrupted(path, target):
        if path.name == "staged":
            raise Interrupted("by SIGTERM")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(Interrupted):
        put_in_place(tmp_path / "staged", tmp_path / "model")
    assert (tmp_path / "model" / "weights").read_text() == "old"


def test_a_link_is_not_replaced_by_a_folder(tmp_path):
    (tmp_path / "v1").mkdir()
    (tmp_path / "current").symlink_to("v1")
    with pytest.raises(nt.ConfigError, match=r"is a link\. Name the folder itself"):
        refuse_existing(tmp_path / "current", overwrite=True)


def test_what_the_user_wrote_is_part_of_the_fingerprint(tmp_path, monkeypatch):
    module = tmp_path / "own_task.py"
    module.write_text("import nlp_transfer as nt\nclass Own(nt.TextClassification): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import own_task  # type: ignore[import-not-found]

    before = own_code_sha256(own_task.Own)
    assert before == own_code_sha256(own_task.Own) != own_code_sha256(nt.TextClassification)
    module.write_text(module.read_text().replace("pass", "loss_sum = None"))
    assert own_code_sha256(own_task.Own) != before
