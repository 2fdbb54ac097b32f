"""Every exception the toolkit raises on purpose, and the code a command then exits with.

NlpTransferError
├── ConfigError      a setting, or a pair of settings, that cannot work         2
├── DataError        an input file or example that cannot be used               2
├── CheckpointError  a checkpoint that cannot be found or read                  2
├── ArtifactError    a saved model that is incomplete, damaged or does not fit  2
├── BusyError        more requests than may wait; the same one may go later     1
├── HubError         the Hub did not answer; the same command goes on           1
└── TrainingError    a run that cannot go on, such as a loss that is nan        1
KeyboardInterrupt
└── Interrupted      a signal asked to stop; the same command goes on            75

Ctrl-C in what cannot go on, such as a prediction, is 130, as of any program.
"""

import difflib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args, get_origin, get_type_hints

EXIT_OK = 0
EXIT_FAILURE = 1
"""A failure of ours or of the machine."""
EXIT_BAD_INPUT = 2
"""The input or the configuration is wrong."""
EXIT_STOPPED = 75
"""Stopped by a signal; the same command goes on. sysexits.h has it as EX_TEMPFAIL: try again later."""

MAX_QUOTED = 20
MAX_COMPARED = 200


class NlpTransferError(Exception):
    """Base class: catch this to catch anything the toolkit raises itself."""

    exit_code = EXIT_BAD_INPUT


class ConfigError(NlpTransferError, ValueError):
    """A setting, or a pair of settings, cannot work."""


class DataError(NlpTransferError, ValueError):
    """An input file or example cannot be used."""


class CheckpointError(NlpTransferError, ValueError):
    """A checkpoint cannot be found or read."""


class ArtifactError(NlpTransferError, ValueError):
    """A saved model is incomplete, damaged or does not fit its base."""


class BusyError(NlpTransferError, RuntimeError):
    """More requests wait than may; the same one may be answered later."""

    exit_code = EXIT_FAILURE


class HubError(NlpTransferError, RuntimeError):
    """The Hub did not answer, or not as it should; the same command goes on."""

    exit_code = EXIT_FAILURE


class TrainingError(NlpTransferError, RuntimeError):
    """A run cannot go on."""

    exit_code = EXIT_FAILURE


class Interrupted(KeyboardInterrupt):
    """A signal asked to stop, and what was done so far is kept.

    No NlpTransferError, not even an Exception: those are caught in many a place below us.
    """

    exit_code = EXIT_STOPPED


@contextmanager
def needing(extra: str) -> Iterator[None]:
    """Around an import of what only some want: raises ConfigError where it is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(f"This needs {error.name}: pip install 'nlp-transfer[{extra}]'.") from error


def first_line(error: BaseException) -> str:
    """What an exception of another library says, without its epilogue."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def did_you_mean(name: str, allowed: Collection[str]) -> str:
    """A sentence that offers the nearest allowed name, or nothing; starts with a blank. Of very many names, nothing:
    they are compared one by one.
    """
    in_other_case = [other for other in allowed if other.casefold() == name.casefold()]
    if not in_other_case and len(allowed) > MAX_COMPARED:
        return ""
    close = in_other_case or difflib.get_close_matches(name, list(allowed), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def quoted(names: Sequence[str]) -> str:
    """A list for a message, not too long."""
    shown = ", ".join(repr(name) for name in names[:MAX_QUOTED])
    return shown + (f" and {len(names) - MAX_QUOTED} more" if len(names) > MAX_QUOTED else "")


def counted(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def refuse_other_choices(config: Any) -> None:
    """Raises ConfigError when a field of ``config`` that allows certain values only holds another one."""
    for name, kind in get_type_hints(type(config)).items():
        allowed, value = get_args(kind), getattr(config, name)
        if get_origin(kind) is Literal and value not in allowed:
            raise ConfigError(
                f"{type(config).__name__}.{name} must be one of {quoted(allowed)}, got {value!r}."
                f"{did_you_mean(str(value), allowed)}"
            )
