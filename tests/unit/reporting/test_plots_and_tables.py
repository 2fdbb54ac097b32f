"""Pictures and tables come out whole, whatever the labels are called."""

from pathlib import Path

import numpy as np
import pytest

from nlp_transfer.metrics import Confusion
from nlp_transfer.reporting.plots import (
    MAX_LABELS,
    draw_confusion,
    draw_curves,
    drawable,
    most_confused,
    moving_average,
)
from nlp_transfer.reporting.tables import markdown_table

PNG = b"\x89PNG\r\n\x1a\n"


def is_picture(path: Path) -> bool:
    return path.read_bytes().startswith(PNG)


def make_log(losses: list[float | None], scores: list[float]) -> list[dict[str, object]]:
    steps = [{"step": step, "loss": loss} for step, loss in enumerate(losses, start=1)]
    epochs = [{"epoch": epoch, "validation": {"f1": score, "loss": 0.0}} for epoch, score in enumerate(scores, start=1)]
    return [*steps, *epochs]


@pytest.mark.parametrize(
    ("losses", "scores"),
    [
        ([2.0, 1.0, 0.5], [0.1, 0.9, 0.8]),
        ([1.0], [0.0]),
        ([0.0, 0.0], [1.0, 1.0]),
        ([1.0] * 2000, [0.5] * 20),
        ([2.0, None, 0.5], [0.1]),
        ([None], [0.1]),
    ],
    ids=["a run", "one step", "nothing to learn", "a long run", "a step left out", "no step with a loss"],
)
def test_curves_are_drawn(tmp_path, losses, scores):
    draw_curves(make_log(losses, scores), "f1", tmp_path / "curves.png")
    assert is_picture(tmp_path / "curves.png")


@pytest.mark.parametrize(
    "names",
    [
        ("a",),
        ("no", "yes"),
        ("$x_{$", "50$ to 60$", "a_b^c", "\\frac{"),
        ("", "_hidden", "é", "a" * 60, "two\nlines"),
        tuple(f"intent {i}" for i in range(60)),
        ("好评", "差评", "🙂", "\U0010fffd"),
    ],
    ids=["one", "two", "dollars", "odd", "many", "scripts without a font"],
)
def test_a_confusion_matrix_is_drawn_for_labels_of_any_name_and_number(tmp_path, names):
    counts = np.random.default_rng(0).integers(0, 5, (len(names), len(names)))
    confusion = Confusion(names, tuple(map(tuple, counts.tolist())))
    draw_confusion(confusion, tmp_path / "confusion.png", "test")
    assert is_picture(tmp_path / "confusion.png")


def test_a_label_that_no_font_can_write_is_shown_by_its_number():
    assert drawable("naïve", 3, ["DejaVu Sans"]) == "naïve"
    assert drawable("a \U0010fffd", 3, ["DejaVu Sans"]) == "label 3"


def test_an_empty_confusion_matrix_is_drawn(tmp_path):
    draw_confusion(Confusion(("a", "b"), ((0, 0), (0, 0))), tmp_path / "confusion.png", "test")
    assert is_picture(tmp_path / "confusion.png")


def test_the_labels_confused_most_are_kept_in_their_order():
    size = MAX_LABELS + 10
    counts = np.diag(np.full(size, 100))
    confused = [0, *range(11, size)]
    for i in confused:
        counts[i, (i + 1) % size] += i + 1
    confusion = Confusion(tuple(f"l{i}" for i in range(size)), tuple(map(tuple, counts.tolist())))
    names, kept, totals = most_confused(confusion)
    assert len(names) == MAX_LABELS
    assert names == sorted(names, key=lambda name: int(name[1:]))
    assert {"l0", f"l{size - 1}"} <= set(names)
    assert "l5" not in names
    assert kept.diagonal().tolist() == [100] * MAX_LABELS
    at = names.index(f"l{size - 1}")
    assert totals[at] == 100 + size  # also what was taken for a label that is not shown
    assert totals.sum() > kept.sum()


def test_a_small_confusion_matrix_is_kept_whole():
    names, counts, totals = most_confused(Confusion(("a", "b"), ((3, 1), (0, 2))))
    assert names == ["a", "b"]
    assert totals.tolist() == [4, 2]
    assert counts.tolist() == [[3, 1], [0, 2]]


@pytest.mark.parametrize(
    ("values", "smoothed"), [([], []), ([3.0], [3.0]), ([2.0] * 5, [2.0] * 5), ([0.0, 1.0], [0.0, 0.1 / 0.19])]
)
def test_the_moving_average_is_right_from_its_start(values, smoothed):
    assert moving_average(values) == pytest.approx(smoothed)


def test_numbers_in_a_table_are_lined_up_on_the_right():
    assert markdown_table(["label", "f1", "support"], [["joy", "0.5", "10"], ["long name", "0.25", "3"]]) == (
        "| label     |   f1 | support |\n"
        "| --------- | ---: | ------: |\n"
        "| joy       |  0.5 |      10 |\n"
        "| long name | 0.25 |       3 |"
    )


def test_a_table_may_have_no_rows():
    assert markdown_table(["a", "b"], []) == "| a   |   b |\n| --- | --: |"


@pytest.mark.parametrize(("cell", "shown"), [("a|b", "a\\|b"), ("a\nb", "a b"), ("a\r\nb", "a b")])
def test_a_cell_cannot_break_its_row(cell, shown):
    *_, row = markdown_table(["label", "n"], [[cell, "1"]]).split("\n")
    assert [part.strip() for part in row.replace("\\|", "\0").split("|")] == ["", shown.replace("\\|", "\0"), "1", ""]
