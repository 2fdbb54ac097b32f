"""The ``nlp-transfer`` command: which one is meant, and one line for what is wrong with its flags."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import tyro

from nlp_transfer import __version__
from nlp_transfer.commands.making import convert, export, merge
from nlp_transfer.commands.sharing import pull, push
from nlp_transfer.commands.training import check, copy_recipe, list_recipes, run_recipe
from nlp_transfer.commands.using import evaluate, predict, serve
from nlp_transfer.launching import guarded, one_line_errors

COMMANDS: dict[str, Callable[..., None]] = {
    "recipes": list_recipes,
    "copy": copy_recipe,
    "check": check,
    "run": run_recipe,
    "evaluate": evaluate,
    "predict": predict,
    "merge": merge,
    "export": export,
    "convert": convert,
    "serve": serve,
    "push": push,
    "pull": pull,
}


def main() -> int:
    """The ``nlp-transfer`` command; gives the exit code."""
    args = sys.argv[1:]
    if args[:1] == ["run"] and len(args) > 1 and not args[1].startswith("-"):
        return guarded(lambda: run_recipe(args[1], tuple(args[2:])))  # the recipe reads its own flags
    return guarded(lambda: dispatch(args))


def dispatch(args: list[str]) -> None:
    """Parse under one-line errors, and run outside of them, so that nothing a command prints is caught."""
    if args == ["--version"]:
        print(f"nlp-transfer {__version__}")
        return
    chosen: list[Callable[[], None]] = []
    deferred = {name: defer(command, chosen) for name, command in COMMANDS.items()}
    with one_line_errors():
        tyro.extras.subcommand_cli_from_dict(
            deferred, prog="nlp-transfer", description="Fine-tune, evaluate and use adapters.", args=args or ["--help"]
        )
    chosen[0]()


def defer(command: Callable[..., None], chosen: list[Callable[[], None]]) -> Callable[..., None]:
    """The same signature and help; calling it only notes the call."""

    @functools.wraps(command)
    def note(*args: Any, **kwargs: Any) -> None:
        chosen.append(functools.partial(command, *args, **kwargs))

    return note
