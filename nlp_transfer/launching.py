"""Makes a command of a function: every field of a config is a flag, an error is one line, an end has its exit code.

With ``cli`` the only modules that import the command-line library.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import select
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import tyro

from nlp_transfer.durable import as_path
from nlp_transfer.errors import (
    EXIT_BAD_INPUT,
    EXIT_FAILURE,
    EXIT_OK,
    EXIT_STOPPED,
    ConfigError,
    Interrupted,
    NlpTransferError,
)
from nlp_transfer.folder_locks import leave
from nlp_transfer.signals import exit_with, noting_stops, stop_at_once

C = TypeVar("C")

EXIT_INTERRUPTED = 130
MAIN_IS_HEARD = 10
"""Seconds that other processes leave the main one to find what is wrong with the input. A launcher ends all when the
first one ends, and the reason would be lost."""
WRONG_PATH = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)
NOT_WORDS = re.compile(r"[─-╿-]{3,}|[│╭╮╰╯]")


def launch(run: Callable[[C], Any], config_type: type[C]) -> None:
    """Make a command of a recipe: every field of its config is a flag. Exits with the code of ``errors``."""

    def work() -> None:
        config = parse(config_type, sys.argv[1:], Path(sys.argv[0]).name, run)
        named = None if getattr(config, "dry_run", False) else getattr(config, "run_dir", None)
        run_dir = None if named is None else as_path(named)
        try:
            with noting_stops(run_dir):
                run(config)
        finally:
            if run_dir is not None:
                leave(run_dir)

    with stop_at_once():
        code = guarded(work)
    exit_with(code)


def parse(config_type: type[C], args: list[str], prog: str, run: Callable[..., Any]) -> C:
    story = sys.modules[run.__module__].__doc__ or ""
    try:
        with one_line_errors():
            return tyro.cli(config_type, args=args, prog=prog, description=story.partition("\n")[0])
    except ConfigError as error:
        if "nrecognized" in str(error) and sum(map(os.path.isfile, args)) > 1:  # a pattern that the shell has filled in
            raise ConfigError(f"{error} Several files are named by one pattern in quotation marks.") from None
        raise


def guarded(work: Callable[[], object]) -> int:
    """Run, and turn what is raised on purpose into one line and an exit code."""
    warnings.filterwarnings("ignore", category=FutureWarning)  # of the libraries below, to their own authors
    try:
        work()
        sys.stdout.flush()  # here, where a reader that went away is no error yet
    except NlpTransferError as error:
        return fail(str(error), error.exit_code)
    except OSError as error:
        if isinstance(error, BrokenPipeError) and nobody_reads():
            return EXIT_OK
        code = EXIT_BAD_INPUT if isinstance(error, WRONG_PATH) else EXIT_FAILURE
        return fail(f"{error.filename or 'the machine'}: {error.strerror or error}", code)
    except Interrupted as stopped:
        return fail(str(stopped), EXIT_STOPPED, kind="stopped")
    except KeyboardInterrupt:
        return fail("interrupted", EXIT_INTERRUPTED)
    return EXIT_OK


def nobody_reads() -> bool:
    """Whether the reader of our standard output has seen enough, as ``head`` has; what is left to say is dropped then.

    The pipe itself is asked: what was being written may be gone from the buffers, and flushing them say nothing.
    """
    pipe = select.poll()
    pipe.register(sys.stdout.fileno(), 0)
    gone = bool(pipe.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return gone


def fail(message: str, code: int, kind: str = "error") -> int:
    from nlp_transfer.reporting.progress import is_main_process

    line = f"{kind}: {' '.join(message.split())}"
    with suppress(OSError):  # whoever reads may be gone, or the terminal: the exit code says it too
        if is_main_process():
            print(line, file=sys.stderr, flush=True)
        elif code in (EXIT_BAD_INPUT, EXIT_FAILURE):
            if code == EXIT_BAD_INPUT:  # the main process finds that, too: it says it, and the launcher ends the others
                time.sleep(MAIN_IS_HEARD)
            print(f"[process {os.environ['RANK']}] {line}", file=sys.stderr, flush=True)
    return code


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """tyro draws a box of several lines and exits; say the same in one line."""
    drawn = io.StringIO()
    try:
        with contextlib.redirect_stderr(drawn):
            yield
    except SystemExit as exit_:
        if exit_.code in (None, 0):  # the help was asked for
            sys.stdout.flush()
            raise
        raise ConfigError(one_line(drawn.getvalue())) from None


def one_line(box: str) -> str:
    """The words of the box without its title and its frame."""
    lines = [NOT_WORDS.sub(" ", line).strip() for line in box.splitlines()]
    words = " ".join(line for line in lines[1:] if line)
    message, _, _ = words.partition("Argument helptext:")
    return message.replace("For full helptext, run:", "See").replace("For full helptext, run", "See").strip()
