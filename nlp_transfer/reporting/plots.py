"""Pictures of a run: learning curves and the confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from nlp_transfer.metrics import Confusion

LOSS_COLOUR, SCORE_COLOUR = "#4878a8", "#c44e52"
MAX_LABELS = 30
"""A larger confusion matrix shows the labels that are confused most."""
MAX_NAMED_CELLS = 15
"""Up to this many labels, counts are written into the cells."""
SMOOTHING = 0.9
MAX_NAME = 24
FALLBACK_FONTS = (
    *(
        "Noto Sans CJK SC",
        "Noto Sans CJK JP",
        "Noto Sans",
        "Noto Sans Arabic",
        "Noto Sans Devanagari",
        "WenQuanYi Zen Hei",
    ),
    *("Microsoft YaHei", "Yu Gothic", "Hiragino Sans", "PingFang SC", "Arial Unicode MS"),
)


def draw_curves(log: Sequence[Mapping[str, Any]], metric: str, path: Path) -> None:
    """Loss of every step with its moving average, and the validation score of every epoch. A step that was left out
    because its loss is not finite has none.
    """
    steps = [line for line in log if line.get("loss") is not None]
    epochs = [line for line in log if "validation" in line]
    figure, (loss, score) = new_figure(10, 4, 2)
    numbers, losses = [line["step"] for line in steps], [line["loss"] for line in steps]
    loss.plot(numbers, losses, color=LOSS_COLOUR, alpha=0.25, linewidth=1, label="each step")
    loss.plot(numbers, moving_average(losses), color=LOSS_COLOUR, linewidth=2, label="moving average")
    loss.set(title="Training loss per target", xlabel="step", ylabel="loss", ylim=(0, None))
    loss.legend(frameon=False)
    scores = [line["validation"][metric] for line in epochs]
    numbers = [line["epoch"] for line in epochs]
    score.plot(numbers, scores, color=SCORE_COLOUR, marker="o")
    best = int(np.argmax(scores))
    score.annotate(
        f"best: {scores[best]:.3f}", (numbers[best], scores[best]), (0, 8), textcoords="offset points", ha="center"
    )
    score.set(title=f"Validation {metric}", xlabel="epoch", ylabel=metric, xlim=(0.5, numbers[-1] + 0.5))
    score.xaxis.set_major_locator(MaxNLocator(integer=True))
    score.margins(y=0.2)
    save(figure, path)


def moving_average(values: Sequence[float]) -> list[float]:
    """Exponential, corrected for its start."""
    average, smoothed = 0.0, []
    for count, value in enumerate(values, start=1):
        average = SMOOTHING * average + (1 - SMOOTHING) * value
        smoothed.append(average / (1 - SMOOTHING**count))
    return smoothed


def draw_confusion(confusion: Confusion, path: Path, what: str) -> None:
    """Rows are gold labels, columns predictions; the shade is the share of the row."""
    names, counts, totals = most_confused(confusion)
    fonts = {"fontfamily": font_families()}
    shares = counts / np.maximum(totals[:, None], 1)
    shown = [shorten(drawable(name, confusion.names.index(name), **fonts)) for name in names]
    size = max(4.5, 0.32 * len(names) + 2)
    figure, (axes,) = new_figure(size + 1, size, 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), shown, rotation=60, ha="right", rotation_mode="anchor", **fonts)
    axes.set_yticks(range(len(names)), shown, **fonts)
    left_out = len(confusion.names) - len(names)
    title = f"Confusion of {what}" + (f" ({left_out} labels with fewer errors not shown)" if left_out else "")
    axes.set(title=title, xlabel="predicted", ylabel="gold")
    if len(names) <= MAX_NAMED_CELLS:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=8)
    figure.colorbar(image, ax=axes, label="share of gold", fraction=0.046)
    save(figure, path)


def draw_bars(counts: Mapping[str, int], path: Path, title: str) -> None:
    """A bar a class, the most frequent first; at most MAX_LABELS of them."""
    ordered = sorted(counts.items(), key=lambda pair: -pair[1])[:MAX_LABELS]
    fonts = {"fontfamily": font_families()}
    names = [shorten(drawable(name, number, **fonts)) for number, (name, _) in enumerate(ordered)]
    figure, (axes,) = new_figure(8, max(2.0, 0.28 * len(ordered) + 1), 1)
    axes.barh(range(len(ordered)), [number for _, number in ordered], color=LOSS_COLOUR)
    axes.set_yticks(range(len(ordered)), names, **fonts)
    axes.invert_yaxis()
    left_out = len(counts) - len(ordered)
    axes.set(title=title + (f" ({left_out} rarer ones not shown)" if left_out else ""), xlabel="number")
    save(figure, path)


def draw_lengths(lengths: Mapping[str, np.ndarray[Any, Any]], limit: int, path: Path) -> None:
    """How many texts of each part have how many tokens, and the limit if any text reaches it."""
    figure, (axes,) = new_figure(8, 4, 1)
    longest = max(int(values.max()) for values in lengths.values() if len(values))
    right = max(float(np.percentile(values, 99.5)) for values in lengths.values() if len(values)) + 1
    if longest >= limit:
        right = max(right, limit * 1.1)
        axes.axvline(limit, color=SCORE_COLOUR, linestyle="--", label=f"limit: {limit}")
    bins = np.arange(0, right + (width := np.ceil(right / 40)), width)  # whole numbers: else some bars hold one more
    for name, values in lengths.items():
        shares = np.full(len(values), 1 / max(1, len(values)))
        axes.hist(np.minimum(values, right), bins=bins, weights=shares, histtype="step", linewidth=2, label=name)
    beyond = f" (the last bar: up to {longest:,})" if longest > right else ""
    axes.set(title="Tokens of the texts", xlabel=f"tokens{beyond}", ylabel="share of texts")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(frameon=False)
    save(figure, path)


def font_families() -> list[str]:
    """matplotlib's own font, and behind it what this machine has for scripts that it lacks."""
    installed = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(name for name in FALLBACK_FONTS if name in installed)]


def drawable(name: str, number: int, fontfamily: Sequence[str]) -> str:
    """The name, or its number among the labels where no font here has its characters."""
    fonts = [font_manager.get_font(font_manager.findfont(family)) for family in fontfamily]
    missing = any(
        not any(font.get_char_index(ord(character)) for font in fonts) for character in name if character.strip()
    )
    return f"label {number}" if missing else name


def shorten(name: str) -> str:
    """A label as matplotlib can draw it: on one line, not too long, dollars not read as mathematics."""
    line = " ".join(name.split())
    return (line if len(line) <= MAX_NAME else f"{line[: MAX_NAME - 1]}…").replace("$", r"\$")


def most_confused(confusion: Confusion) -> tuple[list[str], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Names and counts of at most MAX_LABELS labels, in their order, and how often each is gold, whatever was
    predicted.
    """
    counts = np.array(confusion.counts)
    errors = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
    kept = sorted(np.argsort(-errors, kind="stable")[:MAX_LABELS])
    return [confusion.names[i] for i in kept], counts[np.ix_(kept, kept)], counts.sum(axis=1)[kept]


def new_figure(width: float, height: float, columns: int) -> tuple[Figure, list[Any]]:
    """A figure of its own: pyplot's global state is not thread-safe and looks for a display."""
    figure = Figure(figsize=(width, height), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(1, columns, column + 1) for column in range(columns)]
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save(figure: Figure, path: Path) -> None:
    figure.savefig(path)
