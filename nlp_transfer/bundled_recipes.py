"""The recipes that come with the toolkit, and those of one's own: find them, and import them from their files."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from nlp_transfer.errors import ConfigError, did_you_mean


def recipes_folder() -> Path:
    """Inside the package when it was installed from a wheel, else beside it."""
    package = Path(__file__).parent
    inside = package / "recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def recipe_files() -> dict[str, Path]:
    return {path.stem: path for path in sorted(recipes_folder().glob("*.py"))}


def find_recipe(name: str) -> Path:
    """By its name, or the path of a recipe of one's own."""
    if name.endswith(".py") and Path(name).is_file():
        return Path(name)
    files = recipe_files()
    if name not in files:
        raise ConfigError(
            f"There is no recipe '{name}'. The recipes are {', '.join(files)}; a path ends in .py."
            f"{did_you_mean(name, files)}"
        )
    return files[name]


def load_recipe(path: Path) -> ModuleType:
    """Import a recipe from its file; its help text is read from there."""
    spec = spec_from_file_location(f"recipe_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is no Python file.")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
