"""`nlp-transfer check` as a user types it: findings, report, and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROWS = [(f"the {word} number {i} is fine today", "xy"[i % 2]) for i, word in enumerate(["film", "book", "song"] * 20)]


def write(path: Path, rows: list[tuple[str, str]]) -> str:
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    return str(path)


@pytest.fixture
def files(tmp_path):
    return write(tmp_path / "train.csv", ROWS[:40]), write(tmp_path / "test.csv", ROWS[40:])


def test_clean_files_end_with_0_and_a_report(call, checkpoint, files):
    code, out, err = call("check", *files, "--checkpoint", checkpoint, "--output", "found")
    assert code == 0, err
    assert out.splitlines()[-1].startswith("0 errors, ")
    assert {path.name for path in Path("found").iterdir()} == {"report.md", "check.json", "classes.png", "lengths.png"}
    found = json.loads(Path("found/check.json").read_text())
    assert found["parts"] == {"train": 40, "test": 20}
    assert found["classes"]["train"] == {"x": 20, "y": 20}
    assert len(found["suspects"]) == 40


def test_a_leak_is_an_error_unless_it_is_allowed(call, checkpoint, files, tmp_path):
    leaky = write(tmp_path / "leaky.csv", [*ROWS[40:], *ROWS[:3]])
    base = ["check", files[0], leaky, "--checkpoint", checkpoint, "--output", "found"]
    code, out, err = call(*base)
    assert (code, err.splitlines()[-1].startswith("error: 1 error, ")) == (2, True), err
    assert "error (leakage): 3 examples of test (13.0%) found in train, too. Delete them from train" in out
    assert call(*base, "--allow-leakage")[0] == 0
    assert call(*base, "--allow-leakage", "--strict")[0] == 2


def test_tagged_files_are_recognised(call, checkpoint, conll):
    code, _, err = call("check", conll, "--checkpoint", checkpoint, "--output", "found")
    assert code == 0, err
    assert set(json.loads(Path("found/check.json").read_text())["classes"]["train"]) == {"PER", "LOC", "ORG"}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "one to three files"),
        (["a.csv", "b.csv", "c.csv", "d.csv"], "one to three files"),
        (["nowhere.csv"], "nowhere.csv: there is no such file"),
        (["hub:org/name"], "name the task of a Hub set with --task"),
    ],
)
def test_what_cannot_be_checked_is_one_line(call, args, words):
    code, out, err = call("check", *args)
    assert (code, out, len(err.splitlines())) == (2, "", 1), err
    assert words in err


def test_check_json_names_every_place(call, checkpoint, files, tmp_path):
    leaky = write(tmp_path / "leaky.csv", ROWS[:30])
    call("check", files[0], leaky, "--checkpoint", checkpoint, "--output", "found")
    [leak] = [f for f in json.loads(Path("found/check.json").read_text())["findings"] if f["kind"] == "leakage"]
    assert leak["places"] == [f"{leaky}:{line} as {files[0]}:{line}" for line in range(2, 32)]


def test_what_reading_counts_is_a_warning_and_strict_makes_it_an_error(call, checkpoint, files, tmp_path):
    odd = write(tmp_path / "odd.csv", [*ROWS, ("some text more", "nan"), ("some text again", "nan")])
    base = ["check", odd, "--checkpoint", checkpoint, "--output", "found"]
    code, out, _ = call(*base)
    assert "warning (reading): Labels 'nan', which may stand for a missing one: 2." in out
    assert (code, call(*base, "--strict")[0]) == (0, 2)
