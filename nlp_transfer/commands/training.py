"""Recipes and data: what is done before there is a model."""

from __future__ import annotations

import sys
from pathlib import Path

from tyro.conf import OmitArgPrefixes, Positional

from nlp_transfer.bundled_recipes import find_recipe, load_recipe, recipe_files
from nlp_transfer.checking.config import CheckConfig
from nlp_transfer.errors import ConfigError, DataError, counted
from nlp_transfer.launching import launch


def list_recipes() -> None:
    """List the recipes, one a line."""
    for name, path in recipe_files().items():
        summary = path.read_text("utf-8").split('"""')[1].splitlines()[0]
        print(f"{name:<24} {summary}")


def copy_recipe(recipe: Positional[str], destination: Positional[Path] = Path()) -> None:
    """Copy a recipe, to make it your own.

    Args:
        recipe: Name of the recipe; see `nlp-transfer recipes`.
        destination: Folder or file to write; a file that exists is not replaced.
    """
    source = find_recipe(recipe)
    target = destination / source.name if destination.is_dir() else destination
    if target.exists():
        raise ConfigError(f"{target} exists already. Name another file.")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())
    print(f"{target} (try: python {target} --help)")


def run_recipe(recipe: Positional[str], settings: Positional[tuple[str, ...]] = ()) -> None:
    """Run a recipe with its settings. `nlp-transfer run RECIPE --help` shows them all.

    Args:
        recipe: Name of the recipe, see `nlp-transfer recipes`; or the path of one's own.
        settings: Flags of the recipe.
    """
    module = load_recipe(find_recipe(recipe))
    sys.argv = [f"nlp-transfer run {recipe}", *settings]
    launch(module.run, module.Config)


def check(files: Positional[tuple[str, ...]], config: OmitArgPrefixes[CheckConfig]) -> None:
    """Check labelled data: leaks, copies, contradictions, odd labels, long texts. Exit code 2 if there is an error.

    Args:
        files: Train; train and test; or train, validation and test. Or a folder with the parts.
        config: What is checked.
    """
    from nlp_transfer.checking.files import check_files

    if config.output.is_file():
        raise ConfigError(f"--output {config.output} is a file. Name a folder.")
    found = check_files(files, config)
    from nlp_transfer.checking.check import described, write_check

    write_check(found, config.output)
    for line in (*found.notes, *(described(finding, most=2) for finding in found.findings)):
        print(line)
    counts = ", ".join(counted(found.number_of(severity), severity) for severity in ("error", "warning", "note"))
    summary = f"{counts}; see {config.output / 'report.md'}."
    if found.has("error") or (config.strict and found.has("warning")):
        raise DataError(summary)
    print(summary)
