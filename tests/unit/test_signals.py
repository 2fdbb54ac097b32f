"""Signals are noted or raise, and leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import nlp_transfer as nt
from nlp_transfer import signals
from nlp_transfer.signals import RECEIVED, noting_stops, stop_at_once, stop_when_asked


def send(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.01)


@pytest.mark.parametrize("number", signals.STOPPING)
def test_a_signal_raises_where_nothing_is_to_be_finished(number):
    before = signal.getsignal(number)
    with pytest.raises(nt.Interrupted, match=f"by {signal.Signals(number).name}"), stop_at_once():
        send(number)
    assert signal.getsignal(number) is before
    assert RECEIVED.name is None


@pytest.mark.parametrize("number", signals.STOPPING)
def test_a_signal_that_is_ignored_stays_so(number, monkeypatch):
    """``nohup`` and a script's ``&``."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with stop_at_once() as received:
            send(number)
            assert received.name is None
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_a_reader_that_is_gone_does_not_stop_what_is_to_be_finished():
    """A terminal that was closed."""
    program = (
        "import os, signal, sys\n"
        "from nlp_transfer.signals import stop_when_asked\n"
        "reader, writer = os.pipe()\n"
        "os.dup2(writer, 2), os.close(reader), os.close(writer)\n"
        "signal.signal(signal.SIGPIPE, signal.SIG_IGN)\n"
        "with stop_when_asked('finishing this step.') as received:\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    print('still here', file=sys.stderr, flush=True)\n"
        "    print(received.name)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "SIGHUP\n")


def test_it_is_noted_where_somebody_looks_and_the_first_one_counts():
    with stop_at_once():
        with stop_when_asked() as received:
            send(signal.SIGTERM)
            send(signal.SIGUSR1)
            assert received.name == "SIGTERM"
        with pytest.raises(nt.Interrupted):
            send(signal.SIGTERM)  # nobody looks any more


def test_ctrl_c_again_some_time_later_does_not_wait(monkeypatch):
    monkeypatch.setattr(signals, "PATIENCE", 0.1)
    with stop_when_asked():
        send(signal.SIGINT)
        send(signal.SIGINT)  # the launcher passes it on
        time.sleep(0.2)
        send(signal.SIGTERM)  # a scheduler may repeat itself
        with pytest.raises(nt.Interrupted):
            send(signal.SIGINT)


def test_another_thread_takes_no_signals_and_sees_none_of_before():
    with pytest.raises(nt.Interrupted), stop_at_once():
        send(signal.SIGTERM)
    seen = []

    def work() -> None:
        with stop_when_asked() as received:
            seen.append(received.name)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None]


def test_a_stop_leaves_its_file(tmp_path):
    with pytest.raises(nt.Interrupted), noting_stops(tmp_path / "run"):
        raise nt.Interrupted("by SIGTERM at step 4")
    assert json.loads((tmp_path / "run" / "stopped.json").read_text()) == {"stopped": "by SIGTERM at step 4"}


def test_no_library_takes_it_for_an_error_of_its_own():
    assert not issubclass(nt.Interrupted, Exception)
    assert issubclass(nt.Interrupted, KeyboardInterrupt)


def interrupted_in_c() -> None:
    try:
        send(signal.SIGTERM)
    except nt.Interrupted:
        raise RuntimeError("FT_Load_Glyph failed") from None


def test_what_others_make_of_the_interruption_is_a_stop_all_the_same(tmp_path):
    with pytest.raises(nt.Interrupted, match="by SIGTERM"), stop_at_once(), noting_stops(tmp_path):
        interrupted_in_c()
    assert (tmp_path / "stopped.json").exists()


def full_disk_after_a_signal() -> None:
    send(signal.SIGTERM)
    raise OSError("disk full")


def test_an_error_after_a_signal_that_was_only_noted_stays_that_error(tmp_path):
    with pytest.raises(OSError, match="disk full"), noting_stops(tmp_path), stop_when_asked():
        full_disk_after_a_signal()
