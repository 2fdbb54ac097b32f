"""Code for a card that runs as it is pasted: with this toolkit, and with the plain libraries."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nlp_transfer.hub.card import Card

AUTO_CLASS = {"text_classification": "AutoModelForSequenceClassification", "ner": "AutoModelForTokenClassification"}
EXAMPLE = "A text of yours."


def example_of(card: Card) -> str:
    """As Python spells it."""
    return json.dumps(card.examples[0] if card.examples else EXAMPLE, ensure_ascii=False)


def asked_of(card: Card) -> str:
    text = example_of(card)
    return f"({text}, {text})" if card.task.get("text_pair") else text


def own_snippet(card: Card) -> str:
    lines = ["import nlp_transfer as nt", ""]
    if card.member:
        lines += [f'bank = nt.AdapterBank.load("{card.repo}")']
        lines += [f'print(bank.predict([("{card.member}", {asked_of(card)})]))']
    else:
        lines += [f'model = nt.load("{card.repo}")', f"print(model.predict({asked_of(card)}))"]
    return "\n".join(lines)


def plain_snippet(card: Card) -> str:
    text = example_of(card)
    asked = f"{text}, {text}" if card.task.get("text_pair") else text
    lines = [*(plain_adapter(card) if card.is_adapter else plain_whole(card))]
    lines += [f'inputs = tokenizer({asked}, truncation=True, return_tensors="pt")', "with torch.no_grad():"]
    if card.is_tagger:
        lines += ["    ids = model(**inputs).logits[0].argmax(dim=-1).tolist()"]
        lines += ['tokens = tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])']
        lines += ["print([(token, labels[i]) for token, i in zip(tokens, ids)])"]
    else:
        function = "sigmoid()" if card.task.get("multi_label") else "softmax(dim=-1)"
        lines += [f"    probabilities = model(**inputs).logits[0].{function}"]
        lines += ["print(dict(zip(labels, probabilities.tolist())))"]
    return "\n".join(lines)


def plain_adapter(card: Card) -> list[str]:
    auto = AUTO_CLASS[card.task["name"]]
    inside = f', subfolder="{card.member}"' if card.member else ""
    revision = f', revision="{card.base.revision}"' if card.base.revision else ""
    revision_item = f', "revision": "{card.base.revision}"' if card.base.revision else ""
    return [
        "import json",
        "",
        "import peft",
        "import torch",
        "import transformers",
        "from huggingface_hub import hf_hub_download",
        "",
        f'with open(hf_hub_download("{card.repo}", "manifest.json"{inside}), encoding="utf-8") as file:',
        '    labels = json.load(file)["task"]["labels"]',
        f'options = {{"num_labels": len(labels), "ignore_mismatched_sizes": True{revision_item}}}',
        f'base = transformers.{auto}.from_pretrained("{card.base.name}", **options)',
        f'model = peft.PeftModel.from_pretrained(base, "{card.repo}"{inside}).eval()',
        f'tokenizer = transformers.AutoTokenizer.from_pretrained("{card.base.name}"{revision})',
    ]


def plain_whole(card: Card) -> list[str]:
    return [
        "import torch",
        "import transformers",
        "",
        f'model = transformers.{AUTO_CLASS[card.task["name"]]}.from_pretrained("{card.repo}").eval()',
        f'tokenizer = transformers.AutoTokenizer.from_pretrained("{card.repo}")',
        "labels = list(model.config.id2label.values())",
    ]
