"""What keeps the project readable: import direction, bounds, public names, the tree in the README, fast imports."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import nlp_transfer
from tests.processes import PROJECT, python

MODULES = sorted(PROJECT.glob("nlp_transfer/**/*.py"))
RECIPES = sorted(PROJECT.glob("recipes/*.py"))
MAX_MODULE, MAX_RECIPE, MAX_FUNCTION, MAX_DEPTH = 300, 90, 50, 3
MEDIAN_FUNCTION = 12
BLOCKS = (ast.For, ast.While, ast.If, ast.With, ast.Try, ast.AsyncFor, ast.AsyncWith)
NAMES_NOT_USED = {"utils", "helpers", "common", "misc", "manager", "handler", "factory", "wrapper", "cfg"}


def name_of(path: Path) -> str:
    return str(path.relative_to(PROJECT))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text())
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of its body, docstring not counted."""
    body = function.body[1:] if ast.get_docstring(function) and len(function.body) > 1 else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1


def depth(node: ast.AST, is_elif: bool = False) -> int:
    """Blocks inside blocks; an elif is as deep as its if."""
    own = 1 if isinstance(node, BLOCKS) and not is_elif else 0
    chained = node.orelse if isinstance(node, ast.If) and len(node.orelse) == 1 else []
    return own + max(
        (depth(child, child in chained and isinstance(child, ast.If)) for child in ast.iter_child_nodes(node)),
        default=0,
    )


@pytest.mark.parametrize("path", MODULES + RECIPES, ids=name_of)
def test_a_module_stays_within_its_bounds(path):
    limit = MAX_RECIPE if path in RECIPES else MAX_MODULE
    assert len(path.read_text().splitlines()) <= limit
    for function in functions(path):
        assert length(function) <= MAX_FUNCTION, function.name
        assert depth(function) <= MAX_DEPTH, function.name


def test_functions_are_short():
    lengths = sorted(length(function) for path in MODULES for function in functions(path))
    assert lengths[len(lengths) // 2] <= MEDIAN_FUNCTION


@pytest.mark.parametrize("path", MODULES + RECIPES, ids=name_of)
def test_a_module_says_what_it_is_and_has_a_telling_name(path):
    assert ast.get_docstring(ast.parse(path.read_text()))
    assert not NAMES_NOT_USED & set(path.stem.split("_"))


@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_a_recipe_uses_the_public_names_only(path):
    imports = [line for line in path.read_text().splitlines() if "nlp_transfer" in line and "import" in line]
    assert imports == ["import nlp_transfer as nt"]


def test_imports_point_down_and_each_library_has_one_door():
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=PROJECT)
    assert done.returncode == 0, done.stdout


def test_every_public_name_is_there_and_documented():
    for name in nlp_transfer.__all__:
        value = getattr(nlp_transfer, name)
        assert not isinstance(value, type(sys)), f"{name} is a module"
        if callable(value) and hasattr(value, "__module__") and value.__module__.startswith("nlp_transfer"):
            assert value.__doc__, name


def test_no_public_name_is_hidden_by_a_module_of_that_name():
    """A function ``nt.x`` would turn into the module once ``nlp_transfer.x`` was imported."""
    assert not {path.stem for path in (PROJECT / "nlp_transfer").iterdir()} & set(nlp_transfer.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = nlp_transfer.nothing


def test_static_and_lazy_public_names_are_the_same():
    source = (PROJECT / "nlp_transfer" / "__init__.py").read_text()
    static = re.findall(r"(\w+) as \1\b", source)
    assert sorted(static) == sorted(nlp_transfer.__all__)
    for module, names in nlp_transfer.PUBLIC.items():
        for name in names:
            assert hasattr(importlib.import_module(f"nlp_transfer.{module}"), name)


HEAVY = ("torch", "transformers", "datasets", "peft", "accelerate", "numpy", "matplotlib", "pandas", "pyarrow")


@pytest.mark.parametrize(
    "line",
    [
        "import nlp_transfer",
        "import nlp_transfer as nt; nt.TrainingConfig(); nt.LoraConfig(); nt.TextData; nt.default_checkpoint()",
        "import sys; sys.argv = ['nlp-transfer', 'recipes']; from nlp_transfer.cli import main; assert main() == 0",
    ],
)
def test_what_needs_no_model_loads_no_heavy_library(line):
    done = python("-c", f"{line}\nimport sys\nassert not set({HEAVY!r}) & set(sys.modules), sorted(sys.modules)")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("command", "name", "content"),
    [
        (["run", "text_classification", "--train"], "broken.csv", 'text,label\n"no end'),
        (["run", "ner", "--train"], "broken.conll", "Ada B-PER\nLovelace\n"),
        (["check"], "broken.jsonl", '{"no end'),
    ],
)
def test_a_file_is_refused_before_torch_is_loaded(command, name, content, tmp_path):
    broken = tmp_path / name
    broken.write_text(content)
    done = python("-X", "importtime", "-m", "nlp_transfer", *command, str(broken))
    assert done.returncode == 2
    assert f"{broken}:" in done.stderr
    imported = set(re.findall(r"^import time:.*\| +(\w+)$", done.stderr, re.MULTILINE))
    assert "numpy" in imported
    assert not imported & set(HEAVY) - {"numpy", "pyarrow"}


def test_the_tree_in_the_readme_is_the_tree():
    readme = (PROJECT / "README.md").read_text()
    tree = readme.split("```text\nnlp_transfer/\n")[1].split("```")[0]
    listed = {match.group(1).rstrip("/") for match in re.finditer(r"[├└]── (\S+)", tree)}
    ours = {path.name for path in (PROJECT / "nlp_transfer").iterdir() if not path.name.startswith("__")}
    ours -= {"py.typed", "recipes"}
    assert listed == ours | {"__init__.py"}


def test_the_version_is_the_same_everywhere():
    version = re.search(r'^version = "(.+)"', (PROJECT / "pyproject.toml").read_text(), re.M)
    assert version is not None
    assert version.group(1) == nlp_transfer.__version__
    assert f"## {nlp_transfer.__version__}" in (PROJECT / "CHANGELOG.md").read_text()


def test_nothing_is_left_open():
    marks = ("TO" + "DO", "FIX" + "ME", "X" + "XX", "NotImplemented" + "Error")
    for path in [*MODULES, *RECIPES, *PROJECT.glob("scripts/*.py"), *PROJECT.glob("tests/**/*.py")]:
        for mark in marks:
            assert mark not in path.read_text(), f"{mark} in {path}"
