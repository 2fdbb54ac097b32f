"""On a GPU: mixed precision learns, trained weights stay in fp32, and what is saved answers on the CPU."""

import pytest
import torch

import nlp_transfer as nt
from tests.recipes.test_recipes import TRAINING, recipe

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and there is none"),
]


@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
def test_every_precision_learns(checkpoint, tsv, tmp_path, precision):
    module = recipe("text_classification")
    training = nt.TrainingConfig(**TRAINING | {"mixed_precision": precision})
    metrics = module.run(
        module.Config(train=str(tsv), checkpoint=checkpoint, run_dir=tmp_path / "run", training=training)
    )
    assert metrics["accuracy"] >= 0.8
    predictor = nt.load(tmp_path / "run" / "model")
    assert {p.dtype for p in predictor.model.network.parameters()} == {torch.float32}
