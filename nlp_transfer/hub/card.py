"""The model card: all that the manifest and the run know of a model, with nothing left to fill in.

Its metadata is that of the Hub (https://huggingface.co/docs/hub/model-cards), so that scores, base and widget show up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from nlp_transfer.manifest import Manifest
from nlp_transfer.reporting.tables import markdown_table
from nlp_transfer.tasks.ner import Ner

PIPELINE = {"text_classification": "text-classification", "ner": "token-classification"}
AUTO_CLASS = {"text_classification": "AutoModelForSequenceClassification", "ner": "AutoModelForTokenClassification"}
WEAK = 0.5
"""An F1 below it is named among the limits."""
MAX_WIDGETS, MAX_NAMED = 3, 10
EXAMPLE = "A text of yours."


@dataclass(frozen=True)
class Card:
    """What a card is made from."""

    repo: str
    manifest: Manifest
    base: str | None
    """Hub id; None for whole weights whose base is on no Hub."""
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
        return self.repo.rpartition("/")[2]

    @property
    def examples(self) -> list[str]:
        texts = [" ".join(s["words"]) if self.is_tagger else s["text"] for s in self.manifest.samples]
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
    extra: dict[str, Any] = {"base_model_relation": kind} if card.base else {}
    if card.examples:
        extra["widget"] = [{"text": text} for text in card.examples]
    return ModelCardData(
        base_model=card.base,
        library_name=library,
        license=card.licence,
        pipeline_tag=PIPELINE[card.task["name"]],
        tags=["nlp-transfer", *(["lora"] if card.manifest.adapter == "lora" else [])],
        model_name=card.name,
        eval_results=results(card),
        **extra,
    )


def results(card: Card) -> list[EvalResult]:
    part = card.summary["data"].get(card.summary["part"], {}) if card.summary else {}
    name = str(part.get("file") or "held-out examples")
    return [
        EvalResult(
            task_type=PIPELINE[card.task["name"]],
            dataset_type="private",
            dataset_name=name,
            dataset_split=split,
            metric_type=metric,
            metric_name=metric,
            metric_value=round(value, 4),
        )
        for split, found in card.manifest.scores.items()
        for metric, value in found.items()
    ]


def what_it_does(card: Card) -> str:
    names = ", ".join(f"`{name}`" for name in card.classes)
    what = {
        "ner": f"Finds entities of {len(card.classes)} types in texts: {names}.",
        "text_classification": f"Classifies {'pairs of texts' if card.task.get('text_pair') else 'texts'} into "
        f"{len(card.classes)} labels{', any number of them a text' if card.task.get('multi_label') else ''}: {names}.",
    }[card.task["name"]]
    base = f" of [{card.base}](https://huggingface.co/{card.base})" if card.base else ""
    form = {"lora": "A LoRA adapter", "head": "A head", "none": "A fine-tuned model", "onnx": "An ONNX export"}
    on = " on top" if card.is_adapter else ""
    return f"{what} {form[card.manifest.adapter]}{on}{base}."


def usage(card: Card) -> list[str]:
    text = json.dumps(card.examples[0] if card.examples else EXAMPLE, ensure_ascii=False)
    asked = f"({text}, {text})" if card.task.get("text_pair") else text
    lines = ["import nlp_transfer as nt", "", f'model = nt.load("{card.repo}")', f"print(model.predict({asked}))"]
    ours = (
        "```python\n" + "\n".join(lines) + "\n```\n\n"
        "Files are compared with their sha256, the base with the one it was trained on; labels, limits and thresholds "
        "come with it."
    )
    if card.manifest.adapter == "onnx":
        return ["## Use", ours]
    title = "With plain PEFT" if card.is_adapter else "With plain transformers"
    return ["## Use", ours, f"## {title}", f"```python\n{plain_snippet(card, text)}\n```"]


def plain_snippet(card: Card, text: str) -> str:
    auto = AUTO_CLASS[card.task["name"]]
    source, lines = card.repo, ["import torch", "import transformers"]
    if card.is_adapter:
        lines = ["import json", "", "import peft", *lines, "from huggingface_hub import hf_hub_download"]
        revision = f', revision="{card.manifest.checkpoint.revision}"' if card.manifest.checkpoint.revision else ""
        lines += ["", f'with open(hf_hub_download("{card.repo}", "manifest.json")) as file:']
        lines += ['    labels = json.load(file)["task"]["labels"]']
        lines += [f'base = transformers.{auto}.from_pretrained("{card.base}"{revision}, num_labels=len(labels))']
        lines += [f'model = peft.PeftModel.from_pretrained(base, "{card.repo}").eval()']
        source = f'"{card.base}"{revision}'
        lines += [f"tokenizer = transformers.AutoTokenizer.from_pretrained({source})"]
    else:
        lines += ["", f'model = transformers.{auto}.from_pretrained("{source}").eval()']
        lines += [f'tokenizer = transformers.AutoTokenizer.from_pretrained("{source}")']
        lines += ["labels = list(model.config.id2label.values())"]
    asked = f"{text}, {text}" if card.task.get("text_pair") else text
    lines += [f'inputs = tokenizer({asked}, truncation=True, return_tensors="pt")', "with torch.no_grad():"]
    if card.is_tagger:
        lines += ["    ids = model(**inputs).logits[0].argmax(dim=-1).tolist()"]
        lines += ['tokens = tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])']
        return "\n".join([*lines, "print([(token, labels[i]) for token, i in zip(tokens, ids)])"])
    function = "sigmoid()" if card.task.get("multi_label") else "softmax(dim=-1)"
    return "\n".join(
        [
            *lines,
            f"    probabilities = model(**inputs).logits[0].{function}",
            "print(dict(zip(labels, probabilities.tolist())))",
        ]
    )


def scores(card: Card) -> list[str]:
    found = [(part, name, value) for part, named in card.manifest.scores.items() for name, value in named.items()]
    if not found:
        return []
    rows = [[part, name, f"{value:.4f}"] for part, name, value in found]
    sections = ["## Scores", markdown_table(["part", "metric", "value"], rows)]
    if card.summary:
        cells = [
            [row["label"], f"{row['precision']:.3f}", f"{row['recall']:.3f}", f"{row['f1']:.3f}", f"{row['support']:,}"]
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
    }[card.task.get("long_texts", "head")]
    lines = [f"- Texts of more than {card.manifest.max_tokens} tokens: {read}."]
    if card.is_tagger:
        lines.append("- Plain libraries cut long texts, and do not see to it that tags are a legal IOB2 sequence.")
    if card.task.get("multi_label"):
        stated = card.task.get("thresholds") or [0.5] * len(card.classes)
        pairs = ", ".join(f"`{name}` {value:g}" for name, value in zip(card.classes, stated, strict=True))
        lines.append(f"- A label is predicted from this probability on: {pairs}.")
    weak = [r for r in (card.summary or {}).get("per_label", []) if r["support"] and r["f1"] < WEAK]
    if weak:
        named = ", ".join(f"`{row['label']}` ({row['f1']:.2f})" for row in weak[:MAX_NAMED])
        lines.append(f"- Weak labels, with an F1 below {WEAK}: {named}{' and more' if len(weak) > MAX_NAMED else ''}.")
    unseen = [row["label"] for row in (card.summary or {}).get("per_label", []) if not row["support"]]
    if unseen:
        lines.append(
            f"- Not in the scored part, so not measured: {', '.join(f'`{name}`' for name in unseen[:MAX_NAMED])}."
        )
    lines.append("- It knows the language and the kind of text that it was trained on; others were not measured.")
    return "\n\n".join(["## Limits", "\n".join(lines)])


def data(card: Card) -> list[str]:
    if not card.summary:
        return []
    rows = [
        [name, f"{part['examples']:,}", part["file"], f"`{part['sha256'][:16]}`" if part["sha256"] else "not a file"]
        for name, part in card.summary["data"].items()
    ]
    return ["## Data", markdown_table(["part", "examples", "file", "sha256 of what was read"], rows)]


def making(card: Card) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in card.manifest.versions.items())
    if not card.summary:
        return ["## How it was made", f"With {versions}."]
    run, plan = card.summary, card.summary["plan"]
    settings = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in run["adapter"].items())
    weights, adapted = run["weights"], f" (LoRA: {settings})" if settings else ""
    lines = [
        f"- Trained {weights['trained']:,} of {weights['all']:,} weights{adapted}",
        f"- {run['steps']:,} steps of {plan['batch_size']} examples, at most {plan['num_epochs']} epochs",
        f"- Peak learning rate {plan['learning_rate']:.1e}, {plan['mixed_precision']} precision",
        f"- {run['seconds']:,.0f} s on {run['machine']}",
        f"- {versions}",
    ]
    return ["## How it was made", "\n".join(lines), f"```sh\n{run['command']}\n```"]


def licence(card: Card) -> str:
    own = f"Licence: {card.licence}." if card.licence else "No licence was stated by whoever published it."
    base = f" The base, {card.base}, has its own." if card.base else ""
    return f"## Licence\n\n{own}{base}"
