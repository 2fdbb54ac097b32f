"""The signs of life of a process."""

from __future__ import annotations

import threading
from datetime import timedelta
from types import SimpleNamespace

import pytest
from torch.distributed import TCPStore

from nlp_transfer.training import processes, watchdog


@pytest.fixture
def store(monkeypatch):
    """What processes meet in."""
    held = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(held.port))
    monkeypatch.setattr(watchdog, "BEAT", 0.001)
    return held


def test_processes_wait_for_each_other_longer_than_a_checkpoint_takes(monkeypatch):
    """NCCL would end them after ten minutes."""
    asked = {}
    monkeypatch.setattr(
        processes, "PartialState", lambda **options: asked.update(options) or SimpleNamespace(num_processes=1)
    )
    processes.processes()
    assert asked["timeout"] >= timedelta(hours=1)


def test_the_last_sign_of_a_process_is_that_it_left_and_nothing_runs_on(store):
    for _ in range(20):
        running = watchdog.Watchdog(0, 1)
        running.leave()
        assert not any(thread.name == "watchdog" for thread in threading.enumerate())
        assert store.get("nlp_transfer/sign_of_life/0") == watchdog.LEFT.encode()
