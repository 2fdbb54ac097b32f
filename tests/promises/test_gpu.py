"""On a GPU: mixed precision learns, weights are trained in fp32, and what is saved answers alike on the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import nlp_transfer as nt
from tests.processes import nlp_transfer
from tests.recipes.test_recipes import TRAINING, recipe

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and there is none"),
]


@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
def test_every_precision_learns_with_weights_in_fp32(checkpoint, tsv, tmp_path, monkeypatch, precision):
    trained: list[nt.Model] = []
    fit = nt.fit
    monkeypatch.setattr(nt, "fit", lambda *args, **kwargs: trained.append(fit(*args, **kwargs)) or trained[-1])
    module = recipe("text_classification")
    training = nt.TrainingConfig(**TRAINING | {"mixed_precision": precision})
    metrics = module.run(
        module.Config(train=str(tsv), checkpoint=checkpoint, run_dir=tmp_path / "run", training=training)
    )
    assert metrics["accuracy"] >= 0.8
    weights = [p for p in trained[0].network.parameters() if p.requires_grad]
    assert {(p.dtype, p.device.type) for p in weights} == {(torch.float32, "cuda")}


def test_what_was_trained_on_a_gpu_answers_alike_on_the_cpu(checkpoint, tsv, tmp_path, monkeypatch):
    module = recipe("text_classification")
    training = nt.TrainingConfig(**TRAINING)
    module.run(module.Config(train=str(tsv), checkpoint=checkpoint, run_dir=tmp_path / "run", training=training))
    records = [json.loads(line) for line in Path(tmp_path, "run", "predictions.jsonl").read_text().splitlines()]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = nlp_transfer("predict", tmp_path / "run" / "model", stdin="".join(r["text"] + "\n" for r in records))
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    for record, answer in zip(records, answers, strict=True):
        assert answer["label"] == record["predicted"]
        assert answer["probability"] == pytest.approx(record["probability"], abs=1e-3)
