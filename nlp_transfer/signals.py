"""What asks a run to stop: Ctrl-C, a scheduler's SIGTERM, SIGUSR1, which it sends ahead of time, or a terminal that is
closed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from nlp_transfer.durable import replace_file
from nlp_transfer.errors import EXIT_STOPPED, ConfigError, Interrupted
from nlp_transfer.folder_locks import is_taken, leave, take

STOPPING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP") if hasattr(signal, name))
"""Windows does not know the last two. What whoever started us has ignored stays ignored, as ``nohup`` and ``&`` do."""


class Received:
    """Whether a signal has come, and which. There is one for the process, as there is one set of signals."""

    name: str | None = None
    since = 0.0
    is_watched = False
    can_wait = False
    """Whether somebody looks at ``name`` from time to time."""
    has_raised = False
    promise = ""
    """What is said when a signal has come and somebody will look."""
    is_late = False
    """Whether the work is done, so that a signal changes nothing any more."""

    def note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """The first one counts: launchers send several. Ctrl-C again, some seconds later, does not wait any more."""
        if self.name is None:
            self.name, self.since = signal.Signals(number).name, time.monotonic()
            if self.promise and os.environ.get("RANK", "0") == "0":
                tell(f"{self.name}: {self.promise}")
        insists = number == signal.SIGINT and time.monotonic() - self.since > PATIENCE
        if (insists or not self.can_wait) and not self.is_late:
            self.stop()

    def stop(self) -> None:
        """Raises Interrupted if a signal has come."""
        if self.name is not None:
            self.has_raised = True
            raise Interrupted(f"by {self.name}")


def tell(line: str) -> None:
    """On standard error, past print, which may be at work itself. Who reads may be gone, with the same Ctrl-C or with
    the terminal: what else is written there then goes nowhere, and is no error.
    """
    try:
        os.write(2, f"{line}\n".encode())
    except BlockingIOError:  # a slow reader, who is still there
        pass
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


RECEIVED = Received()
PATIENCE = 2.0
"""Seconds within which the same Ctrl-C may arrive twice, from the terminal and from a launcher."""
STOPPED_FILE = "stopped.json"


def exit_with(code: int) -> NoReturn:
    """End the program; after a stop, what else is sent does not change the code."""
    if code == EXIT_STOPPED:
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN)
    sys.exit(code)


@contextmanager
def noting_stops(run_dir: Path | None) -> Iterator[None]:
    """Leave a file in the run folder, unless another run is at work there: a scheduler's script may not see the exit
    code of a process behind a launcher.

    Also where code in C that was interrupted made an error of its own of it, as matplotlib's does: raises Interrupted.
    """
    try:
        yield
    except BaseException as error:
        if not (isinstance(error, Interrupted) or RECEIVED.has_raised):
            raise
        stopped = error if isinstance(error, Interrupted) else Interrupted(f"by {RECEIVED.name}")
        if run_dir is not None and os.environ.get("RANK", "0") == "0":
            was_taken = is_taken(run_dir)
            with suppress(OSError, ConfigError):  # where it cannot be written, nothing else was
                take(run_dir, patience=0)
                replace_file(run_dir / STOPPED_FILE, (json.dumps({"stopped": str(stopped)}) + "\n").encode())
            if not was_taken:
                leave(run_dir)
        raise stopped from None


@contextmanager
def stop_at_once() -> Iterator[Received]:
    """A signal raises Interrupted wherever the program is. Python takes signals in its main thread only; in another one
    the program that started the thread decides.
    """
    if threading.current_thread() is not threading.main_thread():
        yield Received()
        return
    if RECEIVED.is_watched:
        yield RECEIVED
        return
    RECEIVED.name, RECEIVED.is_watched, RECEIVED.is_late, RECEIVED.has_raised = None, True, False, False
    heard = [number for number in STOPPING if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, RECEIVED.note) for number in heard}
    try:
        yield RECEIVED
    finally:
        RECEIVED.name, RECEIVED.is_watched, RECEIVED.has_raised = None, False, False
        for number, previous in before.items():
            signal.signal(number, previous if previous is not None else signal.SIG_DFL)


@contextmanager
def stop_when_asked(promise: str = "") -> Iterator[Received]:
    """A signal is noted, for whoever is in the midst of something to look at when it suits. One that came after the
    last look counts for what follows.
    """
    with stop_at_once() as received:
        received.can_wait, received.promise = True, promise
        try:
            yield received
        finally:
            received.can_wait, received.promise = False, ""
