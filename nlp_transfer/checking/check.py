"""Check the parts of a labelled set, and write what was found for people and for programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nlp_transfer.checking.classes import class_counts, find_in_classes, find_in_texts
from nlp_transfer.checking.copies import find_copies, find_leaks
from nlp_transfer.checking.findings import MAX_PLACES, Finding, Parts, Severity
from nlp_transfer.checking.lengths import Lengths, find_long, measure
from nlp_transfer.checking.near_copies import find_near_copies
from nlp_transfer.checking.suspects import find_suspects
from nlp_transfer.checkpoints import load_sequence_classifier
from nlp_transfer.data.examples import IntArray, Source
from nlp_transfer.data.layouts import TEXTS
from nlp_transfer.data.notes import PASSED_OVER, Notes
from nlp_transfer.data.store import ExampleStore
from nlp_transfer.errors import CheckpointError
from nlp_transfer.labels import LabelSet
from nlp_transfer.reporting.tables import markdown_table
from nlp_transfer.tasks.base import DEFAULT_MAX_TOKENS

REPORT_FILE, JSON_FILE = "report.md", "check.json"
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Check:
    """What a check looked at and found; the gravest first."""

    parts: dict[str, int]
    """Number of examples of each."""
    classes: dict[str, Counter[str]]
    """Of each part: how often each class occurs."""
    lengths: dict[str, IntArray]
    """Of each part: tokens of every text; empty where there was no tokenizer."""
    limit: int
    findings: list[Finding]
    suspects: list[str]
    """Places in train, those whose label fits worst first; empty where that was not looked at."""
    notes: tuple[str, ...]
    """What reading recognised."""

    def number_of(self, severity: Severity) -> int:
        return sum(finding.severity == severity for finding in self.findings)

    def has(self, severity: Severity) -> bool:
        return self.number_of(severity) > 0


def check_parts(
    parts: Parts,
    notes: Notes,
    checkpoint: str,
    *,
    max_tokens: int | None = None,
    allow_leakage: bool = False,
) -> Check:
    """Look for copies, leaks, contradictions, odd classes, long texts and suspicious labels. One part is ``train``."""
    findings = find_leaks(parts, allow_leakage=allow_leakage) + find_copies(parts) + find_near_copies(parts)
    findings += find_in_classes(parts) + find_in_texts(parts) + found_in_reading(notes)
    lengths: dict[str, Lengths] = {}
    suspects: list[Source] = []
    limit = max_tokens or DEFAULT_MAX_TOKENS
    train = parts["train"]
    labels = LabelSet.collect(train.class_places())
    try:
        model = load_sequence_classifier(checkpoint, labels if len(labels) > 1 else LabelSet(("a", "b")))
    except CheckpointError as error:
        findings.append(
            Finding(
                kind="not_checked", severity="warning", count=1, message=f"Lengths and labels were not checked: {error}"
            )
        )
    else:
        limit = min(limit, model.max_tokens)
        lengths = {name: measure(part, model.tokenizer, limit) for name, part in parts.items()}
        findings += [find_long(name, part, lengths[name], limit) for name, part in parts.items()]
        if has_one_label_each(train) and len(labels) > 1:
            finding, suspects = find_suspects(model, labels, train)
            findings.append(finding)
    return Check(
        {name: len(part) for name, part in parts.items()},
        class_counts(parts),
        {name: of_part.tokens for name, of_part in lengths.items()},
        limit,
        in_order(finding for finding in findings if finding.count),
        list(map(str, suspects)),
        tuple(notes.sentences),
    )


def found_in_reading(notes: Notes) -> list[Finding]:
    """What was repaired, skipped or looked odd; comments are passed over as they are meant to be."""
    return [
        Finding(
            kind="reading",
            severity="note" if PASSED_OVER in what else "warning",
            count=number,
            message=f"{what}: {number:,}.",
            places=(str(first),),
        )
        for what, (number, first) in notes.counts.items()
    ]


def check_briefly(parts: Parts) -> list[Finding]:
    """What needs no checkpoint: what a run looks at before it begins. Errors are left to the task, which knows more."""
    return [finding for finding in in_order(find_copies(parts) + find_in_classes(parts)) if finding.severity != "error"]


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def has_one_label_each(train: ExampleStore[Any]) -> bool:
    return train.layout is TEXTS and all(len(example.labels) == 1 for example in train)


def write_check(check: Check, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    from nlp_transfer.reporting.plots import draw_bars, draw_lengths  # matplotlib takes most of a second

    draw_bars(check.classes["train"], folder / "classes.png", "Classes of train")
    if check.lengths:
        draw_lengths(check.lengths, check.limit, folder / "lengths.png")
    (folder / REPORT_FILE).write_text(page(check), "utf-8")
    plain = {
        "parts": check.parts,
        "classes": {name: dict(counts.most_common()) for name, counts in check.classes.items()},
        "limit": check.limit,
        "findings": [asdict(finding) for finding in check.findings],
        "suspects": check.suspects,
        "notes": check.notes,
    }
    (folder / JSON_FILE).write_text(json.dumps(plain, indent=1, ensure_ascii=False) + "\n", "utf-8")


def page(check: Check) -> str:
    """The readable page, in Markdown."""
    names = list(check.parts)
    rows = [
        [label, *(f"{check.classes[name][label]:,}" for name in names)]
        for label, _ in check.classes["train"].most_common()
    ]
    sections = [
        "# Check of the data",
        markdown_table(["part", "examples"], [[name, f"{size:,}"] for name, size in check.parts.items()]),
        "## Findings",
        "\n".join(f"- {described(finding)}" for finding in check.findings) or "Nothing was found.",
        "## Classes",
        markdown_table(["class", *names], rows),
        "![How often each class occurs](classes.png)",
    ]
    if check.lengths:
        sections += ["## Lengths", length_table(check.lengths), "![Tokens of the texts](lengths.png)"]
    sections += ["## How it was read", "\n".join(f"- {note}" for note in check.notes) or "- As it stands."]
    return "\n\n".join(sections) + "\n"


def length_table(lengths: Mapping[str, IntArray]) -> str:
    rows = [
        [name, *(f"{np.percentile(values, share):,.0f}" for share in (50, 95, 100)), f"{int(values.sum()):,}"]
        for name, values in lengths.items()
    ]
    return markdown_table(["tokens", "median", "95 %", "longest", "all"], rows)


def described(finding: Finding, most: int = MAX_PLACES) -> str:
    """One line; in Markdown, too. ``most``: places named."""
    places = f" First: {'; '.join(finding.places[:most])}." if finding.places else ""
    return f"{finding.severity} ({finding.kind}): {finding.message}{places}"
