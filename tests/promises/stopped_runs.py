"""Train a tiny model with some settings, once undisturbed and once stopped in several places, and compare.

A script too, for several processes: ``accelerate launch stopped_runs.py CHECKPOINT CORPUS CASE FOLDER``.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from torch import Tensor

import nlp_transfer as nt
from nlp_transfer.adapters.trainable import trainable_state
from nlp_transfer.fingerprints import hash_files, hash_tensors
from nlp_transfer.training import fit
from nlp_transfer.training.processes import processes

SETTINGS: dict[str, Any] = {"num_epochs": 3, "batch_size": 8, "mixed_precision": "no", "save_every": 4, "dropout": 0.1}
CASES: dict[str, dict[str, Any]] = {
    "LoRA": {},
    "all weights": {"adapter": "none"},
    "the head alone": {"adapter": "head"},
    "the top layer": {"lora": {"top_layers": 1}},
    "no LoRA dropout": {"lora": {"dropout": 0.0}},
    "accumulation": {"batch_size": 2, "gradient_accumulation_steps": 4},
    "workers": {"dataloader_num_workers": 2},
    "micro-batches by length": {"batch_size": None, "batch_tokens": 120},
    "masked tokens": {"token_masking": 0.3},
    "bf16": {"mixed_precision": "bf16"},
    "cosine and layer decay": {"schedule": "cosine", "layer_decay": 0.8},
    "gradient checkpointing": {"gradient_checkpointing": True},
    "an iterable": {"as_iterable": True},
    "steps left out": {"nan": True},
    "early stopping": {"early_stopping_patience": 1, "num_epochs": 5},
    "named entities": {"corpus": "conll"},
}
PLACES = (("loss", 3), ("epoch", 1), ("validation", 1))
"""When the signal comes, counted from each start: in the third micro-batch, when the next epoch has been validated, and
in the midst of validating the one after it."""


@dataclass
class Trap:
    """Sends a signal to this process at the n-th call of a kind."""

    kind: str = ""
    number: int = 0
    nan: bool = False
    """Whether the losses of some micro-batches are not finite."""

    def set(self, kind: str, number: int) -> None:
        self.kind, self.number = kind, number

    def called(self, kind: str) -> None:
        self.number -= kind == self.kind
        if kind == self.kind and self.number == 0:
            os.kill(os.getpid(), signal.SIGTERM)


TRAP = Trap()


class Trapped:
    """Calls the trap from within a task."""

    def loss_sum(self, logits: Tensor, labels: Tensor) -> Tensor:
        TRAP.called("loss")
        loss: Tensor = super().loss_sum(logits, labels)  # type: ignore[misc]
        return loss * (math.nan if TRAP.nan and int(labels.sum()) == 4 else 1)


class TrappedClassification(Trapped, nt.TextClassification):
    """Text classification with the trap."""


class TrappedNer(Trapped, nt.Ner):
    """NER with the trap."""


class TrappedSession(fit.Session[Any, Any]):
    """Calls the trap when the validation begins and when all of an epoch is done."""

    def _validate(self) -> nt.Metrics:
        TRAP.called("validation")
        return super()._validate()

    def _finish_epoch(self) -> None:
        super()._finish_epoch()
        TRAP.called("epoch")


def train(checkpoint: str, corpus: Path, case: dict[str, Any], run_dir: Path, *, overwrite: bool = False) -> nt.Model:
    """One start of a run; raises Interrupted if the trap was hit."""
    options = SETTINGS | case
    lora = nt.LoraConfig(**{"rank": 2, "dropout": 0.2, **options.pop("lora", {})})
    adapter, as_iterable = options.pop("adapter", "lora"), options.pop("as_iterable", False)
    options.pop("corpus", None)
    TRAP.nan, seed = options.pop("nan", False), 1
    if corpus.suffix == ".conll":
        splits: Any = nt.read_ner(nt.NerData(train=str(corpus)), seed=seed)
        task: Any = TrappedNer.for_splits(splits, nt.NerConfig())
        model = nt.load_token_classifier(checkpoint, task.labels, seed=seed)
    else:
        splits = nt.read_text_classification(nt.TextData(train=str(corpus)), seed=seed)
        task = TrappedClassification.for_splits(splits, nt.TextClassificationConfig())
        model = nt.load_sequence_classifier(checkpoint, task.labels, seed=seed)
    model = nt.add_adapter(model, adapter, lora, seed=seed)
    examples: Iterable[Any] = iter(list(splits.train)) if as_iterable else splits.train
    config = nt.TrainingConfig(seed=seed, **options)
    with mock.patch.object(fit, "Session", TrappedSession):
        parts = {"train": examples, "validation": splits.validation}
        return nt.fit(model, task, **parts, config=config, run_dir=run_dir, overwrite=overwrite)


def outcome(model: nt.Model, run_dir: Path) -> dict[str, str]:
    """What must be the same, bit for bit."""
    if not processes().is_main_process:
        return {"model": hash_tensors(trainable_state(model.network))}
    last = sorted((run_dir / "checkpoints").glob("step-*"))[-1]
    return {
        "model": hash_tensors(trainable_state(model.network)),
        "place": last.name,
        "weights": hash_files([last / "weights.safetensors"]),
        "optimizer": hash_files([last / "optimizer.safetensors"]),
        "log": hash_files([run_dir / "log.jsonl"]),
    }


def compare(checkpoint: str, corpus: Path, case: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The outcomes of the undisturbed and of the stopped run, and the checkpoint of each stop."""
    whole = outcome(train(checkpoint, corpus, case, folder / "whole"), folder / "whole")
    stops = []
    for place in PLACES:
        if processes().is_last_process:  # it gets the signal, and the others must be told
            TRAP.set(*place)
        try:
            train(checkpoint, corpus, case, folder / "stopped")
        except nt.Interrupted:
            stops.append(sorted(path.name for path in (folder / "stopped" / "checkpoints").glob("step-*"))[-1])
    again = outcome(train(checkpoint, corpus, case, folder / "stopped"), folder / "stopped")
    return {"whole": whole, "stopped": again, "stops": stops}


if __name__ == "__main__":
    checkpoint, corpus, case, folder = sys.argv[1:]
    found = compare(checkpoint, Path(corpus), CASES[case], Path(folder)) | {"processes": processes().num_processes}
    Path(folder, f"found-{processes().process_index}.json").write_text(json.dumps(found))
