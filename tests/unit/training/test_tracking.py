"""Losses and scores reach the trackers that were asked for; the log is written in any case."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

import nlp_transfer as nt
from nlp_transfer.errors import Interrupted
from tests.promises import stopped_runs


def events(run_dir: Path) -> Iterator[Event]:
    """Of all event files."""
    for path in run_dir.rglob("events.out.tfevents.*"):
        data, place = path.read_bytes(), 0
        while place < len(data):  # length, its checksum, the event, its checksum
            size = int.from_bytes(data[place : place + 8], "little")
            yield Event.FromString(data[place + 12 : place + 12 + size])
            place += 16 + size


def scalars(run_dir: Path) -> dict[str, dict[int, float]]:
    """Name, step, value."""
    found: dict[str, dict[int, float]] = {}
    for event in events(run_dir):
        for value in event.summary.value:
            found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


def test_tensorboard_gets_every_step_and_every_epoch(checkpoint, tsv, tmp_path):
    stopped_runs.train(checkpoint, tsv, {"trackers": ("tensorboard",)}, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    found = scalars(tmp_path)
    steps = {line["step"]: line["loss"] for line in lines if "loss" in line}
    assert found["loss"] == pytest.approx(steps, abs=1e-5)
    epochs = {line["step"]: line["validation"]["accuracy"] for line in lines if "validation" in line}
    assert found["validation/accuracy"] == pytest.approx(epochs, abs=1e-4)


def test_a_run_that_goes_on_is_one_line_in_tensorboard_and_one_that_is_replaced_is_gone(checkpoint, tsv, tmp_path):
    case = {"trackers": ("tensorboard",)}
    stopped_runs.TRAP.set("loss", 11)
    with pytest.raises(Interrupted):
        stopped_runs.train(checkpoint, tsv, case, tmp_path)
    step = max(scalars(tmp_path)["loss"])
    stopped_runs.train(checkpoint, tsv, case, tmp_path)
    begun = {event.step for event in events(tmp_path) if event.session_log.status == SessionLog.START}
    assert begun == {1, step + 1}
    whole = scalars(tmp_path)
    (tmp_path / "metrics.json").write_text("{}")  # finished, and now replaced by a shorter one
    stopped_runs.train(checkpoint, tsv, {**case, "num_epochs": 1}, tmp_path, overwrite=True)
    assert 0 < max(scalars(tmp_path)["loss"]) < max(whole["loss"])


def test_nothing_but_what_the_run_has_sent_is_removed(checkpoint, tsv, tmp_path, monkeypatch):
    """Also where the folder is spelled ".", which has no name."""
    other = tmp_path / "run" / "other" / "events.out.tfevents.1"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"")
    monkeypatch.chdir(tmp_path / "run")
    stopped_runs.train(checkpoint, tsv, {"trackers": ("tensorboard",), "num_epochs": 1}, Path())
    assert other.exists()
    assert list((tmp_path / "run" / "run").glob("events.out.tfevents.*"))


def test_a_tracker_whose_package_is_missing_is_refused(checkpoint, tsv, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(nt.ConfigError, match="trackers trackio: install 'trackio'"):
        stopped_runs.train(checkpoint, tsv, {"trackers": ("trackio",)}, tmp_path)


def test_an_unknown_tracker_is_refused_with_the_known_ones():
    with pytest.raises(nt.ConfigError, match="Did you mean 'wandb'"):
        nt.TrainingConfig(trackers=("wanbd",))
