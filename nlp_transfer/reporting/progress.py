"""Progress of long work: a bar on a terminal, plain lines elsewhere, nothing from other processes."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Notes(Console):
    """Falls silent when nobody reads any more (``2>&1 | tee``, and tee has ended; a terminal that was closed): no work
    ends for that.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        try:
            super().print(*objects, **options)
        except OSError as error:
            if error.errno != errno.EIO:  # so a terminal answers that is gone
                raise
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


console = Notes(stderr=True, highlight=False, soft_wrap=True)
"""Progress and notes go to standard error; standard output holds results only."""

SHOWN_AFTER = 2.0
"""Seconds of work before anything is shown."""
LINE_EVERY = 15.0
"""Seconds between plain lines."""


def is_main_process() -> bool:
    """Read from the launcher's environment, so that nothing needs to be set up to print a line."""
    return os.environ.get("RANK", "0") == "0"


def say(line: str) -> None:
    """One line for the user, from the main process only."""
    if is_main_process():
        console.print(line, markup=False)


def say_of_this_process(line: str) -> None:
    """One line about this process alone, whichever it is."""
    console.print(line if is_main_process() else f"[process {os.environ['RANK']}] {line}", markup=False)


class Bar:
    """Counts work and shows how it goes."""

    def __init__(self, title: str, total: int | None, display: Progress | None, done: int = 0) -> None:
        self._title, self._total, self._display = title, total, display
        self._done, self._before = done, done
        self._start = self._last_line = time.monotonic()
        self._task = None
        if display:
            self._task = display.add_task(title, total=total, completed=done, visible=False, status="")

    def advance(self, amount: int, status: str = "") -> None:
        """``amount`` more items are done; ``status`` is shown beside their rate."""
        self._done += amount
        now = time.monotonic()
        rate = (self._done - self._before) / max(now - self._start, 1e-9)
        text = f"{rate:,.0f} examples/s {status}".strip()
        if self._display and self._task is not None:
            self._display.update(self._task, completed=self._done, status=text, visible=now - self._start > SHOWN_AFTER)
        elif now - self._last_line > LINE_EVERY:
            self._last_line = now
            self._say(rate, text)

    def _say(self, rate: float, text: str) -> None:
        if self._total is None:
            say(f"{self._title}: {self._done:,}, {text}")
        else:
            left = max(0, self._total - self._done) / max(rate, 1e-9)
            say(f"{self._title}: {self._done:,} of {self._total:,}, {text}, {left:,.0f} s left")


@contextmanager
def progress_bar(title: str, total: int | None, done: int = 0) -> Iterator[Bar]:
    """A bar over ``total`` items, None if unknown, on a terminal; a line now and then where there is no terminal.
    ``done`` of them were done before.
    """
    if not (console.is_terminal and is_main_process()):
        yield Bar(title, total, None, done)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(),
    )
    # rich would send what is printed meanwhile to the bar's own stream, and so to no file that stdout is sent to
    is_terminal = getattr(sys.stdout, "isatty", bool)()
    with Progress(*columns, console=console, transient=True, redirect_stdout=is_terminal) as display:
        yield Bar(title, total, display, done)
