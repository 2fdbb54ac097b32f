"""Dropout can be switched off and on in every family, in modules and in plain numbers."""

import pytest
import torch

import nlp_transfer as nt
from nlp_transfer.training.prepare import set_dropout
from tests.conftest import FAMILIES


def training_output(model: nt.Model, seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    inputs = model.tokenizer(["Ada lives in Paris and works for Globex"], return_tensors="pt")
    return model.network.train()(**inputs).logits.detach()


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_random_in_training_without_dropout(make_checkpoint, family):
    model = nt.load_token_classifier(str(make_checkpoint(family)), nt.LabelSet(("a", "b", "c")))
    set_dropout(model.network, 0.3)
    assert not torch.equal(training_output(model, 1), training_output(model, 2))
    set_dropout(model.network, 0.0)
    assert torch.equal(training_output(model, 1), training_output(model, 2))


def test_the_adapters_own_dropout_is_left_alone(checkpoint):
    model = nt.load_token_classifier(checkpoint, nt.LabelSet(("a", "b", "c")))
    model = nt.add_adapter(model, "lora", nt.LoraConfig(rank=2, dropout=0.25))
    set_dropout(model.network, 0.0)
    shares = {module.p for name, module in model.network.named_modules() if isinstance(module, torch.nn.Dropout)}
    assert shares == {0.0, 0.25}
