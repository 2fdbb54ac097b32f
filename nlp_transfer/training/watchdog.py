"""Notice when another process of a run has died or is frozen.

gloo waits for a frozen process for ever, whatever time-out it was given, and says of a dead one only that a connection
was closed. So each process leaves a sign of life in the store that they met in, from a thread of its own, and looks for
those of the others.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import psutil
from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]

from nlp_transfer.errors import EXIT_FAILURE, TrainingError
from nlp_transfer.signals import stop_when_asked

BEAT = 0.5
"""Seconds between two signs of life."""
SILENT = 6 * BEAT
"""Seconds of silence that say who it was when a connection has been closed."""
CLOCK_DRIFT = 2.0
"""Seconds by which the time when a process began may be told differently later."""
LEFT = "left"


class Watchdog:
    """Of one process, over all of them."""

    def __init__(self, process: int, num_processes: int) -> None:
        self.process, self.num_processes = process, num_processes
        self.timeout: float | None = None
        """Seconds of silence that end the run; None before it begins."""
        self._own_name = f"{os.getpid()} {psutil.Process().create_time()} {socket.gethostname()}"
        self._beat = 0
        self._looked = self._answered = time.monotonic()
        self._signs = [""] * num_processes
        self._seen = [time.monotonic()] * num_processes
        self._ended = threading.Event()
        # a connection of its own: the one that the group uses may be waiting
        self._store = TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            timeout=timedelta(seconds=10),
            wait_for_workers=False,
        )
        self._give_sign()  # at once, so that the others know the process even if it is lost in its first moments
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """Say that this process ends of its own accord."""
        self._ended.set()
        # it would give one more sign after the last one; and a thread that is in C++ when the interpreter ends aborts
        # the process ("terminate called without an active exception")
        self._thread.join(SILENT)
        with suppress(DistError, RuntimeError):
            self._store.set(self._key(self.process), LEFT)

    def lost(self, after: float) -> list[int]:
        """The processes without a sign of life for ``after`` seconds, and those that have ended."""
        now = time.monotonic()
        return [
            other
            for other in range(self.num_processes)
            if other != self.process and (self._signs[other] == LEFT or now - self._seen[other] > after)
        ]

    def described(self, other: int) -> str:
        sign = self._signs[other]
        if sign == LEFT:
            return f"Process {other} of {self.num_processes} has ended before the others"
        who = f" (pid {sign.split()[1]} on {sign.split()[3]})" if sign else ""
        silence = time.monotonic() - self._seen[other]
        return (
            f"Process {other} of {self.num_processes}{who} has given no sign of life for {silence:.0f} s: it was "
            "killed, is frozen, or its machine cannot be reached"
        )

    def _run(self) -> None:
        while not self._ended.wait(BEAT):
            if time.monotonic() - self._looked > SILENT:  # this process was frozen itself, maybe with the others
                self._seen = [time.monotonic()] * self.num_processes
                self._answered = time.monotonic()
            self._looked = time.monotonic()
            with suppress(DistError, RuntimeError):
                self._give_sign()
                self._look()
                self._answered = time.monotonic()
            if self.timeout is not None:
                self._judge(self.timeout)

    def _judge(self, timeout: float) -> None:
        """The main thread waits in a collective and cannot be woken, so the process ends from here."""
        silent = [other for other in self.lost(timeout) if self._signs[other] != LEFT]
        if time.monotonic() - self._answered > timeout:
            place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            holder = self.described(0) if 0 in silent else f"The store at {place} does not answer"
            self._end_run(f"{holder}. {ADVICE}", silent[:1] if silent == [0] else [])
        elif silent:
            self._end_run(f"{self.described(silent[0])}. {ADVICE}", silent)

    def _give_sign(self) -> None:
        self._beat += 1
        self._store.set(self._key(self.process), f"{self._beat} {self._own_name}")

    def _look(self) -> None:
        for other in range(self.num_processes):
            if other == self.process or not self._store.check([self._key(other)]):
                continue
            sign = self._store.get(self._key(other)).decode()
            if sign != self._signs[other]:
                self._signs[other], self._seen[other] = sign, time.monotonic()

    def _end_run(self, message: str, silent: list[int]) -> None:
        if self.process == min(set(range(self.num_processes)) - set(silent)):
            print(f"error: {message}", file=sys.stderr, flush=True)
        for other in silent:
            self._kill(other)
        os._exit(EXIT_FAILURE)

    def _kill(self, other: int) -> None:
        """A frozen process of this machine, which would keep the launcher waiting; by its pid and when it began."""
        _, pid, began, host = [*self._signs[other].split(), "", "", "", ""][:4]
        with suppress(psutil.Error, OSError, ValueError):
            process = psutil.Process(int(pid))
            if host == socket.gethostname() and abs(process.create_time() - float(began)) < CLOCK_DRIFT:
                process.kill()

    def _key(self, process: int) -> str:
        return f"nlp_transfer/sign_of_life/{process}"


ADVICE = "The run ends; the same command goes on from the last checkpoint."
RUNNING: list[Watchdog] = []
"""The one of this process, once there are several."""


def begin_watching(process: int, num_processes: int) -> None:
    RUNNING.append(Watchdog(process, num_processes))


def set_timeout(seconds: float) -> None:
    """From now on a process that is silent for so long ends the run."""
    for watchdog in RUNNING:
        watchdog.timeout = seconds


@contextmanager
def naming_the_lost() -> Iterator[None]:
    """An error that comes of the loss of another process is raised as a TrainingError that names it."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, TrainingError):
            raise
        with stop_when_asked():  # the launcher sends the others a signal when one is lost
            name_the_lost(error)
        raise


def name_the_lost(error: RuntimeError) -> None:
    for watchdog in RUNNING:
        time.sleep(SILENT + 2 * BEAT)
        for other in watchdog.lost(SILENT)[:1]:
            raise TrainingError(f"{watchdog.described(other)}. {ADVICE}") from error
