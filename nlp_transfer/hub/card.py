"""The model card: all that the manifest and the run know of a model, with nothing left to fill in.

Its metadata is that of the Hub (https://huggingface.co/docs/hub/model-cards), so that scores, base and widget show up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from nlp_transfer.data.tables import HUB_PREFIX
from nlp_transfer.errors import counted
from nlp_transfer.hub.bases import Base
from nlp_transfer.hub.markdown import block, code, plain
from nlp_transfer.hub.snippets import own_snippet, plain_snippet
from nlp_transfer.labels import says_nothing
from nlp_transfer.manifest import Manifest
from nlp_transfer.reporting.tables import markdown_table
from nlp_transfer.tasks.ner import Ner
from nlp_transfer.training.precision import precision_name

PIPELINE = {"text_classification": "text-classification", "ner": "token-classification"}
HUB_METRICS = {
    "accuracy": ("accuracy", "Accuracy"),
    "f1": ("f1", "Entity F1"),
    "macro_f1": ("f1", "Macro F1"),
    "micro_f1": ("f1", "Micro F1"),
    "precision": ("precision", "Precision"),
    "recall": ("recall", "Recall"),
    "strict_f1": ("f1", "Entity F1 (strict)"),
    "weighted_f1": ("f1", "Weighted F1"),
}
"""Each of our scores by the type that the Hub knows, and the name that its page shows."""
WEAK = 0.5
"""An F1 below it is named among the limits."""
MAX_WIDGETS, MAX_NAMED = 3, 10


@dataclass(frozen=True)
class Card:
    """What a card is made from."""

    repo: str
    member: str
    """The adapter's name in a bank; else empty."""
    manifest: Manifest
    base: Base
    summary: Mapping[str, Any] | None
    """``summary.json`` of the run, where the model still stands in it."""
    pictures: tuple[str, ...]
    licence: str | None

    @property
    def task(self) -> dict[str, Any]:
        return self.manifest.task

    @property
    def is_tagger(self) -> bool:
        return bool(self.task["name"] == Ner.name)

    @property
    def is_adapter(self) -> bool:
        return self.manifest.adapter in ("lora", "head")

    @property
    def classes(self) -> list[str]:
        labels = self.task["labels"]
        return [name[2:] for name in labels[1::2]] if self.is_tagger else list(labels)

    @property
    def name(self) -> str:
        return self.member or self.repo.rpartition("/")[2]

    @property
    def examples(self) -> list[str]:
        # texts in which something is found come first
        samples = sorted(self.manifest.samples, key=lambda sample: says_nothing(sample.get("predicted")))
        texts = [" ".join(s["words"]) if self.is_tagger else s["text"] for s in samples]
        return [" ".join(text.split()) for text in texts if text.strip()][:MAX_WIDGETS]


def make_card(card: Card) -> str:
    """The text of ``README.md``."""
    sections = [
        f"---\n{metadata(card).to_yaml()}\n---",
        f"# {card.name}",
        what_it_does(card),
        *usage(card),
        *scores(card),
        limits(card),
        *data(card),
        *making(card),
        licence(card),
    ]
    return "\n\n".join(sections) + "\n"


def metadata(card: Card) -> ModelCardData:
    kind = "adapter" if card.is_adapter else "quantized" if card.manifest.adapter == "onnx" else "finetune"
    library = {"lora": "peft", "head": "peft", "none": "transformers", "onnx": "onnx"}[card.manifest.adapter]
    extra: dict[str, Any] = {"base_model_relation": kind} if card.base.is_on_hub else {}
    if card.examples:
        extra["widget"] = [{"text": text} for text in card.examples]
    return ModelCardData(
        base_model=card.base.name if card.base.is_on_hub else None,
        library_name=library,
        license=card.licence,
        pipeline_tag=PIPELINE[card.task["name"]],
        tags=["nlp-transfer", *(["lora"] if card.manifest.adapter == "lora" else [])],
        model_name=card.name,
        eval_results=results(card) or None,
        **extra,
    )


def results(card: Card) -> list[EvalResult]:
    part = card.summary["data"].get(card.summary["part"], {}) if card.summary else {}
    name = str(part.get("file") or "held-out examples")
    return [
        EvalResult(
            task_type=PIPELINE[card.task["name"]],
            dataset_type=hub_data(name) or "private",
            dataset_name=name,
            dataset_split=split,
            metric_type=HUB_METRICS.get(metric, (metric, metric))[0],  # a task of the user's has its own
            metric_name=HUB_METRICS.get(metric, (metric, metric))[1],
            metric_value=round(value, 4),
        )
        for split, found in card.manifest.scores.items()
        for metric, value in found.items()
    ]


def hub_data(name: str) -> str | None:
    """``org/name`` of ``hub:org/name@revision:config/split``."""
    if not name.startswith(HUB_PREFIX):
        return None
    spelled = name.removeprefix(HUB_PREFIX).rpartition("/")[0]
    return spelled.partition(":")[0].partition("@")[0]


def what_it_does(card: Card) -> str:
    names = ", ".join(map(code, card.classes))
    what = {
        "ner": f"Finds entities of {len(card.classes)} types in texts: {names}.",
        "text_classification": f"Classifies {'pairs of texts' if card.task.get('text_pair') else 'texts'} into "
        f"{len(card.classes)} labels{', any number of them a text' if card.task.get('multi_label') else ''}: {names}.",
    }[card.task["name"]]
    form = {"lora": "A LoRA adapter", "head": "A head", "none": "A fine-tuned model", "onnx": "An ONNX export"}
    base = f"{' on top' if card.is_adapter else ''} of {link(card.base)}" if card.base.is_on_hub else ""
    return f"{what} {form[card.manifest.adapter]}{base}."


def link(base: Base) -> str:
    """To the very commit, where it is known."""
    at = f"/tree/{base.revision}" if base.revision else ""
    return f"[{base.name}](https://huggingface.co/{base.name}{at})"


def usage(card: Card) -> list[str]:
    base = ", and the base with the one that the adapter was trained on" if card.is_adapter else ""
    ours = (
        f"{block(own_snippet(card), 'python')}\n\n"
        f"It needs the Python package `nlp-transfer`, which compares every file with its sha256{base}. Labels, limits "
        "and thresholds come with the model."
    )
    if card.manifest.adapter == "onnx":
        return ["## Use", ours]
    title = "With plain PEFT" if card.is_adapter else "With plain transformers"
    note = "transformers says that the classifier is new: the adapter brings it." if card.is_adapter else ""
    return ["## Use", ours, f"## {title}", block(plain_snippet(card), "python"), *([note] if note else [])]


def scores(card: Card) -> list[str]:
    found = [(part, name, value) for part, named in card.manifest.scores.items() for name, value in named.items()]
    if not found:
        return []
    rows = [[part, name, f"{value:.4f}"] for part, name, value in found]
    sections = ["## Scores", markdown_table(["part", "metric", "value"], rows)]
    if card.summary:
        cells = [
            [
                plain(row["label"]),
                f"{row['precision']:.3f}",
                f"{row['recall']:.3f}",
                f"{row['f1']:.3f}",
                f"{row['support']:,}",
            ]
            for row in sorted(card.summary["per_label"], key=lambda row: (row["f1"], row["label"]))
        ]
        sections += [f"Each label on the {card.summary['part']} part, weakest first:"]
        sections += [markdown_table(["label", "precision", "recall", "F1", "examples"], cells)]
    return [*sections, *(f"![{name.partition('.')[0].capitalize()}]({name})" for name in card.pictures)]


def limits(card: Card) -> str:
    read = {
        "head": "only their beginning is read",
        "head_tail": "only their beginning and their end are read",
        "windows": "they are read in windows, each part once",
    }[card.task.get("long_texts", "windows" if card.is_tagger else "head")]
    lines = [f"- Texts of more than {card.manifest.max_tokens} tokens: {read}."]
    if card.is_tagger:
        lines.append("- Plain libraries cut long texts, and do not see to it that tags are a legal IOB2 sequence.")
    if card.task.get("multi_label"):
        stated = card.task.get("thresholds") or [0.5] * len(card.classes)
        pairs = ", ".join(f"{code(name)} {value:g}" for name, value in zip(card.classes, stated, strict=True))
        lines.append(f"- A label is predicted from this probability on: {pairs}.")
    weak = [r for r in (card.summary or {}).get("per_label", []) if r["support"] and r["f1"] < WEAK]
    if weak:
        named = ", ".join(f"{code(row['label'])} ({row['f1']:.2f})" for row in weak[:MAX_NAMED])
        lines.append(f"- Weak labels, with an F1 below {WEAK}: {named}{' and more' if len(weak) > MAX_NAMED else ''}.")
    unseen = [row["label"] for row in (card.summary or {}).get("per_label", []) if not row["support"]]
    if unseen:
        lines.append(f"- Not in the scored part, so not measured: {', '.join(map(code, unseen[:MAX_NAMED]))}.")
    lines.append("- It knows the language and the kind of text that it was trained on; others were not measured.")
    return "\n\n".join(["## Limits", "\n".join(lines)])


def data(card: Card) -> list[str]:
    if not card.summary:
        return []
    rows = [
        [
            name,
            f"{part['examples']:,}",
            plain(part["file"]),
            f"`{part['sha256'][:16]}`" if part["sha256"] else "not a file",
        ]
        for name, part in card.summary["data"].items()
    ]
    return ["## Data", markdown_table(["part", "examples", "file", "fingerprint"], rows)]


def making(card: Card) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in card.manifest.versions.items())
    if not card.summary:
        return ["## How it was made", f"With {versions}."]
    run, plan = card.summary, card.summary["plan"]
    settings = ", ".join(
        f"{name.replace('_', ' ')} {value}" for name, value in run["adapter"].items() if value is not False
    )
    precision = precision_name(plan["mixed_precision"])
    weights, adapted = run["weights"], f" (LoRA: {settings})" if settings else ""
    lines = [
        f"- Trained {weights['trained']:,} of {weights['all']:,} weights{adapted}",
        f"- {run['steps']:,} steps of {plan['batch_size']} examples, at most {counted(plan['num_epochs'], 'epoch')}",
        f"- Peak learning rate {plan['learning_rate']:.1e}, {precision} precision",
        f"- {run['seconds']:,.0f} s on {run['machine']}",
        f"- {versions}",
    ]
    return ["## How it was made", "\n".join(lines), block(run["command"], "sh")]


def licence(card: Card) -> str:
    own = f"Licence: {card.licence}." if card.licence else "No licence was stated by whoever published it."
    theirs = f"is under {card.base.licence}" if card.base.licence else "states no licence"
    base = f" The base, {link(card.base)}, {theirs}." if card.base.is_on_hub else ""
    return f"## Licence\n\n{own}{base}"
