"""The scripts: tables are made from what was measured, and the quickstart's data is written as its files have it."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import PROJECT

sys.path.insert(0, str(PROJECT / "scripts"))
import measure_recipe
import measured
import quickstart


def test_the_tables_of_the_pages_are_made_from_what_was_measured():
    for page, content in measure_recipe.render().items():
        assert page.read_text("utf-8") == content, f"run: python scripts/measure_recipe.py --render ({page})"


def test_code_that_is_not_committed_is_not_measured(monkeypatch, tmp_path):
    for command in (["init", "-q"], ["add", "-A"]):
        (tmp_path / "scripts").mkdir(exist_ok=True)
        (tmp_path / "scripts" / "new.py").write_text("")
        subprocess.run(["git", *command], check=True, cwd=tmp_path)
    monkeypatch.setattr(measured, "PROJECT", tmp_path)
    with pytest.raises(SystemExit, match="commit first"):
        measured.committed()


def test_a_wrong_argument_ends_a_benchmark_before_it_begins(tmp_path, capsys):
    here = tmp_path / "here.csv"
    here.write_text("")
    config = argparse.Namespace(rounds=1, sizes=(3, 0))
    assert measured.missing([here, tmp_path]) == f"no such file: {tmp_path}"
    assert measured.missing([here]) is None
    assert measured.not_positive(config, "rounds") is None
    assert measured.not_positive(config, "rounds", "sizes") == "--sizes must be at least 1, got 0"
    measured.refuse(None)
    with pytest.raises(SystemExit) as refused:
        measured.refuse("no")
    assert refused.value.code == 2
    assert capsys.readouterr().err == "error: no\n"


def test_ratings_become_labels_and_neutral_texts_are_left_out(monkeypatch, tmp_path):
    rows = ["id\tsentiment\ttext", '1\t2.5\tsays "wow" to it', "2\t-1.0\tawful", "3\t0.5\tso so", "4\t-0.2\tmeh"]
    for name in quickstart.SENTIMENT_FILES.values():
        (tmp_path / name).write_text("\n".join(rows) + "\n")
    monkeypatch.setattr(quickstart, "installed", lambda *_: tmp_path)
    written = quickstart.write_sentiment(tmp_path / "out")
    assert set(written) == set(quickstart.SENTIMENT_FILES)
    for path in written.values():
        assert Path(path).read_text() == 'text\tlabel\nsays "wow" to it\tpositive\nawful\tnegative\n'


def test_the_place_for_results_is_on_both_pages():
    for page in measure_recipe.PAGES:
        lines = page.read_text("utf-8").splitlines()
        assert lines.index("<!-- results -->") < lines.index("<!-- /results -->")
