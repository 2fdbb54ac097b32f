"""A wheel, built and installed elsewhere, lists, copies and runs the recipes without the project beside it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.processes import PROJECT, environment


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder with just the wheel's content."""
    root = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", root, PROJECT]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    wheel = next(root.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(root / "site")
    return root / "site"


def installed(site: Path, cwd: Path, *args: object) -> subprocess.CompletedProcess[str]:
    variables = environment() | {"PYTHONPATH": str(site)}
    words = [sys.executable, "-m", "nlp_transfer", *map(str, args)]
    return subprocess.run(words, check=False, capture_output=True, text=True, cwd=cwd, env=variables)


def test_the_wheel_holds_the_package_alone(site):
    assert {path.name.split("-")[0] for path in site.iterdir()} == {"nlp_transfer"}
    assert (site / "nlp_transfer" / "py.typed").is_file()
    recipes = {path.name for path in (PROJECT / "recipes").glob("*.py")}
    assert {path.name for path in (site / "nlp_transfer" / "recipes").glob("*.py")} == recipes


def test_recipes_are_listed_copied_and_run_from_the_wheel(site, checkpoint, tsv, tmp_path):
    listed = installed(site, tmp_path, "recipes")
    assert "text_classification" in listed.stdout, listed.stderr
    assert installed(site, tmp_path, "copy", "text_classification", "mine.py").returncode == 0
    flags = ["--train", tsv, "--checkpoint", checkpoint, "--training.num-epochs", "1", "--lora.rank", "2"]
    done = installed(site, tmp_path, "run", "text_classification", *flags)
    assert done.returncode == 0, done.stderr
    variables = environment() | {"PYTHONPATH": str(site)}
    copied = [sys.executable, "mine.py", *map(str, flags), "--run-dir", "copied"]
    done = subprocess.run(copied, check=False, capture_output=True, text=True, cwd=tmp_path, env=variables)
    assert done.returncode == 0, done.stderr
    for folder in ("runs/text_classification", "copied"):
        assert os.listdir(tmp_path / folder / "model")
