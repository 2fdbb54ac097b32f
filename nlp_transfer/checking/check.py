"""Check the parts of a labelled set, and write what was found for people and for programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nlp_transfer.checking.classes import class_counts, find_in_classes
from nlp_transfer.checking.copies import find_copies, find_near_copies
from nlp_transfer.checking.findings import Finding, Parts, Severity, item_of
from nlp_transfer.checking.lengths import Lengths, find_long, token_lengths
from nlp_transfer.checking.suspects import find_suspects
from nlp_transfer.checkpoints import load_sequence_classifier
from nlp_transfer.data.examples import TaggedExample, TextExample
from nlp_transfer.errors import CheckpointError
from nlp_transfer.labels import LabelSet
from nlp_transfer.reporting.plots import draw_bars, draw_lengths
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
    lengths: Lengths
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
    examples: Mapping[str, Sequence[TextExample] | Sequence[TaggedExample]],
    notes: tuple[str, ...],
    checkpoint: str,
    *,
    max_tokens: int | None = None,
    allow_leakage: bool = False,
) -> Check:
    """Look for copies, leaks, contradictions, odd classes, long texts and suspicious labels. One part is ``train``."""
    train: Any = examples["train"]
    is_ner = isinstance(train[0], TaggedExample)
    parts: Parts = {name: [item_of(example) for example in part] for name, part in examples.items()}
    findings = find_copies(parts, allow_leakage=allow_leakage) + find_near_copies(parts)
    findings += find_in_classes(parts, is_ner=is_ner)
    lengths: Lengths = {}
    suspects: list[str] = []
    limit = max_tokens or DEFAULT_MAX_TOKENS
    labels = LabelSet.collect([] if is_ner else (label for example in train for label in example.labels))
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
        lengths = token_lengths(parts, model.tokenizer)
        findings += find_long(parts, lengths, limit, is_ner=is_ner)
        if not is_ner and has_one_label_each(train) and len(labels) > 1:
            finding, order = find_suspects(model, labels, train)
            findings += [finding] if finding.count else []
            suspects = [str(train[i].source) for i in order]
    return Check(
        {name: len(items) for name, items in parts.items()},
        class_counts(parts, is_ner=is_ner),
        lengths,
        limit,
        sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)),
        suspects,
        notes,
    )


def has_one_label_each(examples: Any) -> bool:
    return all(isinstance(example, TextExample) and len(example.labels) == 1 for example in examples)


def write_check(check: Check, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
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
        "\n".join(described(finding) for finding in check.findings) or "Nothing was found.",
        "## Classes",
        markdown_table(["class", *names], rows),
        "![How often each class occurs](classes.png)",
    ]
    if check.lengths:
        sections += ["## Lengths", "![Tokens of the texts](lengths.png)"]
    sections += ["## How it was read", "\n".join(f"- {note}" for note in check.notes) or "- As it stands."]
    return "\n\n".join(sections) + "\n"


def described(finding: Finding) -> str:
    places = f" First: {'; '.join(finding.places)}." if finding.places else ""
    return f"- **{finding.severity}** ({finding.kind}): {finding.message}{places}"
