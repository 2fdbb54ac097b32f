"""Load saved models in this process, which made none of them, and write down their logits.

    python read_back.py OUT CHECKPOINT FOLDER [CHECKPOINT FOLDER ...]

For each folder: through the toolkit, and through plain PEFT on plain transformers.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import peft
import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor

from nlp_transfer.checkpoints import Model
from nlp_transfer.data.examples import Source, TaggedExample, TextExample
from nlp_transfer.saved_models import load_model, logits
from nlp_transfer.tasks.base import Task

TEXTS = ("Ada lives in Paris .", "a really lovely film indeed", "Bob left . " * 6)


def outputs(model: Model, task: Task) -> Tensor:
    """All logits of TEXTS in one row of numbers."""
    source = Source("text", 1)
    if task.name == "ner":
        examples = [TaggedExample(tuple(text.split()), (), source) for text in TEXTS]
    else:
        examples = [TextExample(text, (), source) for text in TEXTS]
    return torch.cat([row.flatten() for row in logits(model, task, examples)])


def through_plain_peft(checkpoint: str, folder: Path, ours: Model, task: Task) -> Tensor:
    """A user without the toolkit, who knows the labels and asks for the attention that we use on CPUs."""
    auto = transformers.AutoModelForTokenClassification
    if task.head == "sequence":
        auto = transformers.AutoModelForSequenceClassification
    if json.loads((folder / "manifest.json").read_text())["adapter"] == "none":
        network = auto.from_pretrained(folder, attn_implementation="eager")
    else:
        base = auto.from_pretrained(checkpoint, num_labels=len(task.labels), attn_implementation="eager")
        network = peft.PeftModel.from_pretrained(base, folder)
    for parameter in network.parameters():  # some processors round by where in memory a tensor lies
        parameter.data = parameter.data.clone()
    return outputs(replace(ours, network=network.eval()), task)


if __name__ == "__main__":
    out, *rest = sys.argv[1:]
    found = {}
    for checkpoint, folder in zip(rest[::2], rest[1::2], strict=True):
        model, task = load_model(Path(folder))
        found[f"{folder} ours"] = outputs(model, task)
        found[f"{folder} peft"] = through_plain_peft(checkpoint, Path(folder), model, task)
    save_file(found, out)
