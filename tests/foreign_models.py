"""Models as users of plain transformers and PEFT leave them, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import torch
import transformers as hf

from nlp_transfer.adapters.targets import lora_targets

AUTO = {"sequence": hf.AutoModelForSequenceClassification, "token": hf.AutoModelForTokenClassification}
CLASSES = ["bad", "fine", "good"]
TAGS = ["B-PER", "I-PER", "O", "I-LOC", "B-LOC"]
"""Not in our order."""


def network_of(checkpoint: Path, head: str, **config: Any) -> Any:
    names = CLASSES if head == "sequence" else TAGS
    torch.manual_seed(2)
    settings = {"id2label": dict(enumerate(names)), "attn_implementation": "eager", "dtype": torch.float32} | config
    return AUTO[head].from_pretrained(checkpoint, **settings)


def move(network: torch.nn.Module, by: float) -> None:
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape), alpha=by)


def whole_model(checkpoint: Path, head: str, folder: Path, **config: Any) -> tuple[Any, Any]:
    network, tokenizer = network_of(checkpoint, head, **config), hf.AutoTokenizer.from_pretrained(checkpoint)
    move(network, 0.02)
    network.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return network, tokenizer


def plain_adapter(checkpoint: Path, head: str, folder: Path, **config: Any) -> tuple[Any, Any]:
    """Targets are named by their endings, as users do: that may be a layer of the head too."""
    base = network_of(checkpoint, head)
    targets = sorted({name.rpartition(".")[2] for name in lora_targets(base, None)})
    kind = "SEQ_CLS" if head == "sequence" else "TOKEN_CLS"
    settings = {"task_type": kind, "r": 4, "lora_alpha": 8, "target_modules": targets} | config
    network = peft.get_peft_model(base, peft.LoraConfig(**settings))
    move(network, 0.1)
    network.eval().save_pretrained(folder, save_embedding_layers=False)
    return network, hf.AutoTokenizer.from_pretrained(checkpoint)
