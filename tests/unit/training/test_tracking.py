"""Losses and scores reach the trackers that were asked for; the log is written in any case."""

from __future__ import annotations

import json
import sys

import pytest
from tensorboardX.proto.event_pb2 import Event

import nlp_transfer as nt
from tests.promises import stopped_runs


def scalars(run_dir) -> dict[str, dict[int, float]]:
    """Of all event files: name, step, value."""
    found: dict[str, dict[int, float]] = {}
    for path in run_dir.rglob("events.out.tfevents.*"):
        data, place = path.read_bytes(), 0
        while place < len(data):  # length, its checksum, the event, its checksum
            size = int.from_bytes(data[place : place + 8], "little")
            event = Event.FromString(data[place + 12 : place + 12 + size])
            place += 16 + size
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


def test_a_tracker_whose_package_is_missing_is_refused(checkpoint, tsv, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(nt.ConfigError, match="trackers trackio: install 'trackio'"):
        stopped_runs.train(checkpoint, tsv, {"trackers": ("trackio",)}, tmp_path)


def test_an_unknown_tracker_is_refused_with_the_known_ones():
    with pytest.raises(nt.ConfigError, match="Did you mean 'wandb'"):
        nt.TrainingConfig(trackers=("wanbd",))
