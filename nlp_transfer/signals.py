"""What asks a run to stop: Ctrl-C, a scheduler's SIGTERM, or SIGUSR1, which it sends ahead of time."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from nlp_transfer.errors import Interrupted

STOPPING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name))
"""SIGUSR1 is not known on Windows."""


class Received:
    """Whether a signal has come, and which. There is one for the process, as there is one set of signals."""

    name: str | None = None
    is_watched = False
    can_wait = False
    """Whether somebody looks at ``name`` from time to time."""

    def note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """The first one counts: launchers send several."""
        first, self.name = self.name is None, self.name or signal.Signals(number).name
        if first and not self.can_wait:
            self.stop()

    def stop(self) -> None:
        """Raises Interrupted if a signal has come."""
        if self.name is not None:
            raise Interrupted(f"by {self.name}")


RECEIVED = Received()


@contextmanager
def stop_at_once() -> Iterator[Received]:
    """A signal raises Interrupted wherever the program is. Python takes signals in its main thread only; in another one
    the program that started the thread decides.
    """
    if RECEIVED.is_watched or threading.current_thread() is not threading.main_thread():
        yield RECEIVED
        return
    RECEIVED.name, RECEIVED.is_watched = None, True
    before = {number: signal.signal(number, RECEIVED.note) for number in STOPPING}
    try:
        yield RECEIVED
    finally:
        RECEIVED.is_watched = False
        for number, previous in before.items():
            signal.signal(number, previous if previous is not None else signal.SIG_DFL)


@contextmanager
def stop_when_asked() -> Iterator[Received]:
    """A signal is noted, for whoever is in the midst of something to look at when it suits. Raises Interrupted at the
    end if one has come.
    """
    with stop_at_once() as received:
        received.can_wait = True
        try:
            yield received
        finally:
            received.can_wait = False
        received.stop()
