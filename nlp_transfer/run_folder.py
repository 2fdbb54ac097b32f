"""The folder of a run: what was asked, how it went, and what came of it.

config.json        the command and every setting as given
splits.json        which examples were held out
data.json          what reading and the check before the run saw
log.jsonl          what was chosen where a setting left it open; then a line a step, a line an epoch
summary.json       what a model card says of the run
metrics.json       scores of the part that the run is judged by; written last: with it the run is finished
predictions.jsonl  every example of that part with its prediction
curves.png, confusion.png, report.md
times.jsonl        when each step and epoch was done, and where the run was resumed
checkpoints/       the last ones; see ``training.checkpointing``
stopped.json       the signal that stopped the run; gone when it goes on
model/             the saved model; see ``artifacts``
"""

from __future__ import annotations

import json
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch

from nlp_transfer.adapters.lora import adapter_settings
from nlp_transfer.adapters.trainable import count_parameters
from nlp_transfer.artifacts import refuse_other_content
from nlp_transfer.checking.check import check_briefly, described
from nlp_transfer.checking.findings import Finding, Parts
from nlp_transfer.checkpoints import Model
from nlp_transfer.data.examples import Example
from nlp_transfer.data.splits import Splits
from nlp_transfer.durable import as_path, replace_file
from nlp_transfer.errors import ConfigError
from nlp_transfer.folder_locks import leave
from nlp_transfer.labels import says_nothing
from nlp_transfer.metrics import LabelScore, Metrics
from nlp_transfer.reporting.progress import say
from nlp_transfer.reporting.tables import markdown_table
from nlp_transfer.signals import RECEIVED, STOPPED_FILE
from nlp_transfer.training.checkpointing import LOG_FILE
from nlp_transfer.training.evaluate import Evaluation
from nlp_transfer.training.log import (
    CONFIG_FILE,
    CONFUSION_FILE,
    CURVES_FILE,
    DATA_FILE,
    METRICS_FILE,
    PREDICTIONS_FILE,
    REPORT_FILE,
    SPLITS_FILE,
    SUMMARY_FILE,
    TIMES_FILE,
    refuse_finished,
    staged,
)
from nlp_transfer.training.precision import precision_name
from nlp_transfer.training.processes import processes
from nlp_transfer.training.saving import take_folder

NUM_WRONG_SHOWN = 8
MAX_TEXT_SHOWN = 120


def start_run(
    run_dir: str | Path, config: Any, splits: Splits[Example], *, overwrite: bool, dry_run: bool = False
) -> None:
    """Say what was recognised in the data; take the folder until ``finish_run``, and stage settings and held-out
    examples there.

    They take their places when training begins, so that a run that never gets there leaves a finished one whole. A dry
    run writes nothing.

    Raises ConfigError when the folder holds a finished run, unless ``overwrite``; when another run is at work in it;
    and when its ``model`` is not ours to replace.
    """
    run_dir = as_path(run_dir)
    refuse_other_content(run_dir / "model")
    if run_dir.exists() and not run_dir.is_dir():
        raise ConfigError(f"--run-dir {run_dir} is a file. Name a folder.")
    refuse_finished(run_dir, overwrite=overwrite or dry_run)
    for note in splits.notes:
        say(note)
    parts: Parts = dict(splits.parts())
    findings: list[Finding] = check_briefly(parts) if processes().is_main_process else []
    for finding in findings:
        say(f"Check: {described(finding, most=1)}")
    sizes = "Examples: " + ", ".join(f"{len(part):,} {name}" for name, part in parts.items()) + "."
    say(sizes)
    if dry_run:
        return
    seen = [sizes, *splits.notes, *map(described, findings)]
    data = {"notes": seen, "parts": {name: described_part(part) for name, part in parts.items()}}
    take_folder(run_dir)
    try:
        refuse_finished(run_dir, overwrite=overwrite)  # that may have been waited for
        if processes().is_main_process:
            write_json(staged(run_dir / CONFIG_FILE), {"command": command(), "settings": plain(config)})
            write_json(staged(run_dir / SPLITS_FILE), splits.held_out or {})
            write_json(staged(run_dir / DATA_FILE), data)
    except BaseException:
        leave(run_dir)
        raise
    processes().wait_for_everyone()


def described_part(part: Any) -> dict[str, Any]:
    """How much it holds, of which file, and a sha256 over what was read, the file's name and the reader's settings."""
    return {"examples": len(part), "file": part[0].source.file, "sha256": getattr(part, "fingerprint", None)}


def finish_run(run_dir: str | Path, model: Model, evaluation: Evaluation[Any, Any], task: Any) -> Metrics:
    """Write predictions, pictures and report, say where things are and what to type next, and return the scores."""
    run_dir = as_path(run_dir)
    if processes().is_main_process:
        from nlp_transfer.reporting.plots import draw_confusion, draw_curves  # matplotlib takes most of a second

        log = read_lines(run_dir / LOG_FILE)
        pairs = zip(evaluation.examples, evaluation.predictions, strict=True)
        records = [task.record(example, prediction) for example, prediction in pairs]
        write_lines(run_dir / PREDICTIONS_FILE, records)
        draw_curves(log, log[0]["plan"]["selection_metric"], run_dir / CURVES_FILE)
        draw_confusion(evaluation.score.confusion, run_dir / CONFUSION_FILE, f"the {evaluation.part} part")
        summary = summary_of(run_dir, model, evaluation, log)
        write_json(run_dir / SUMMARY_FILE, summary)
        report = write_report(run_dir, model, evaluation, summary, records)
        replace_file(run_dir / REPORT_FILE, report.encode())
        (run_dir / STOPPED_FILE).unlink(missing_ok=True)
        RECEIVED.is_late = True  # with the next file the run is finished
        write_json(run_dir / METRICS_FILE, {evaluation.part: evaluation.metrics})
        closing_lines(run_dir, evaluation, records)
        leave(run_dir)
    processes().wait_for_everyone()
    return evaluation.metrics


def closing_lines(run_dir: Path, evaluation: Evaluation[Any, Any], records: Sequence[Mapping[str, Any]]) -> None:
    model = shlex.quote(str(run_dir / "model"))
    scores = ", ".join(f"{name} {value:.4f}" for name, value in evaluation.metrics.items())
    say(f"{evaluation.part}: {scores}")
    if all(says_nothing(record["predicted"]) for record in records):
        say(f"The model predicts nothing for any of the {len(records):,} examples: train it longer.")
    say(f"Report: {run_dir / REPORT_FILE}   Model: {run_dir / 'model'}")
    pairs = getattr(evaluation.examples[0], "text_pair", None) is not None
    what = "--file pairs.csv" if pairs else '"A text of yours."'
    say(f"Next:   nlp-transfer predict {model} {what}")


def summary_of(
    run_dir: Path, model: Model, evaluation: Evaluation[Any, Any], log: list[dict[str, Any]]
) -> dict[str, Any]:
    """What was trained, on what, how long, and how it does, as plain values."""
    trainable, total = count_parameters(model.network)
    last = read_lines(run_dir / TIMES_FILE)[-1]
    return {
        "command": json.loads((run_dir / CONFIG_FILE).read_text("utf-8"))["command"],
        "data": json.loads((run_dir / DATA_FILE).read_text("utf-8"))["parts"],
        "adapter": adapter_settings(model),
        "weights": {"trained": trainable, "all": total},
        "plan": log[0]["plan"],
        "steps": last["step"],
        "steps_skipped": sum(1 for line in log if line.get("skipped")),
        "seconds": last["seconds"],
        "machine": machine(),
        "part": evaluation.part,
        "per_label": [row._asdict() for row in evaluation.score.per_label],
    }


def write_report(
    run_dir: Path,
    model: Model,
    evaluation: Evaluation[Any, Any],
    summary: Mapping[str, Any],
    records: list[dict[str, Any]],
) -> str:
    """The page a person reads first: scores, labels, errors, settings."""
    trainable, total = summary["weights"]["trained"], summary["weights"]["all"]
    size = sum(path.stat().st_size for path in (run_dir / "model").iterdir()) / 2**20
    plan, skipped = summary["plan"], summary["steps_skipped"]
    scores = markdown_table(["metric", "value"], [[name, f"{value:.4f}"] for name, value in evaluation.metrics.items()])
    sections = [
        f"# {run_dir.name}",
        f"Scores on the {evaluation.part} part ({len(evaluation.examples):,} examples):",
        scores,
        "![Loss and validation score](curves.png)",
        "## Labels",
        label_table(evaluation.score.per_label),
        "![Confusion matrix](confusion.png)",
        f"## Errors\n\n{errors(records)}",
        "## The data",
        "\n".join(f"- {line}" for line in json.loads((run_dir / DATA_FILE).read_text("utf-8"))["notes"]),
        "## How it was made",
        f"- Checkpoint `{model.origin.name}`, revision {model.origin.revision or 'none (local)'}, weights sha256 "
        f"`{model.origin.weights_sha256[:12]}…`\n- Adapter `{model.adapter}`: {trainable:,} of {total:,} weights "
        f"trained, {size:.1f} MiB saved\n- {plan['num_epochs']} epochs planned, peak learning rate "
        f"{plan['learning_rate']:.1e}, {precision_name(plan['mixed_precision'])} precision, "
        f"{plan['padding_share']:.1%} padding, {plan['examples_cut']:,} training examples cut\n"
        f"- {summary['steps']:,} steps{f' ({skipped:,} changed no weight)' if skipped else ''} in "
        f"{summary['seconds']:,.0f} s on {summary['machine']}",
        f"```\n{summary['command']}\n```",
    ]
    return "\n\n".join(sections) + "\n"


def label_table(rows: Iterable[LabelScore]) -> str:
    ordered = sorted(rows, key=lambda row: (row.support == 0, row.f1, -row.support, row.label))
    cells = [
        [r.label, f"{r.precision:.3f}", *([f"{r.recall:.3f}", f"{r.f1:.3f}"] if r.support else "––"), f"{r.support:,}"]
        for r in ordered
    ]
    return "Weakest first; what does not occur in this part comes last.\n\n" + markdown_table(
        ["label", "precision", "recall", "F1", "support"], cells
    )


def errors(records: Sequence[Mapping[str, Any]]) -> str:
    wrong = [record for record in records if not record["correct"]]
    if not wrong:
        return f"None: all {len(records):,} examples are right."
    head = f"{len(wrong):,} of {len(records):,} examples are not entirely right. The first of them"
    return f"{head} (all are in `{PREDICTIONS_FILE}`):\n\n" + "\n".join(map(show_error, wrong[:NUM_WRONG_SHOWN]))


def show_error(record: Mapping[str, Any]) -> str:
    if "words" not in record:
        text = record["text"] + (f" / {record['text_pair']}" if "text_pair" in record else "")
        return f"- {shorten(text)} → **{named(record['predicted'])}**, gold **{named(record['gold'])}**"
    rows = zip(record["words"], record["predicted"], record["gold"], strict=True)
    differing = [f"{word} ({found} for {gold})" for word, found, gold in rows if found != gold]
    return f"- {shorten(' '.join(record['words']))} → {', '.join(differing)}"


def named(labels: str | list[str]) -> str:
    return labels if isinstance(labels, str) else ", ".join(labels) or "(none)"


def shorten(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= MAX_TEXT_SHOWN else flat[: MAX_TEXT_SHOWN - 1] + "…"


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def machine() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"{threads} thread{'s' if threads > 1 else ''} of a {platform.machine()} CPU"


def command() -> str:
    """As it was typed; of "nlp-transfer run ner" the first word of ``sys.argv`` is all three."""
    return shlex.join([*Path(sys.argv[0]).name.split(), *sys.argv[1:]])


def plain(value: Any) -> Any:
    """Dataclasses to dictionaries and paths to text, so that JSON can hold them."""
    if is_dataclass(value) and not isinstance(value, type):
        return {name: plain(item) for name, item in asdict(value).items()}
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return str(value) if isinstance(value, Path) else value


def write_json(path: Path, value: Any) -> None:
    replace_file(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    replace_file(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode())
