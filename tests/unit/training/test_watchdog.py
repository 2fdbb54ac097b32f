"""The signs of life of a process."""

from __future__ import annotations

import threading

import pytest
from torch.distributed import TCPStore

from nlp_transfer.training import watchdog


@pytest.fixture
def store(monkeypatch):
    """What processes meet in."""
    held = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(held.port))
    monkeypatch.setattr(watchdog, "BEAT", 0.001)
    return held


def test_the_last_sign_of_a_process_is_that_it_left_and_nothing_runs_on(store):
    for _ in range(20):
        running = watchdog.Watchdog(0, 1)
        running.leave()
        assert not any(thread.name == "watchdog" for thread in threading.enumerate())
        assert store.get("nlp_transfer/sign_of_life/0") == watchdog.LEFT.encode()
