"""Padding is not computed, and the answers and gradients are those of padded batches."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace

import pytest
import torch

import nlp_transfer as nt
from nlp_transfer.adapters.lora import plain_network
from nlp_transfer.adapters.trainable import trainable_state
from nlp_transfer.checkpoints import encoder_of
from nlp_transfer.data.encoded import Batch
from nlp_transfer.training.unpadded import Unpadding, unpadding_of
from tests.adapters_at_random import move_weights
from tests.conftest import FAMILIES

LABELS = nt.LabelSet(("a", "b", "c"))
CONFIG = {nt.TextClassification: nt.TextClassificationConfig, nt.Ner: nt.NerConfig}
ONE_EPOCH = nt.TrainingConfig(num_epochs=1, batch_size=8, mixed_precision="no")
LENGTHS = (11, 3, 7, 1)
FIRST_ALONE = {"bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert"}
"""Families whose sequence head reads the first token, and whose layers make keys and values apart from queries."""
PADDED = {"albert", "deberta-v2", "mpnet", "xlnet"}
"""Families that have an attention of their own, or share one layer's weights."""


def network_of(checkpoint, head):
    load = nt.load_token_classifier if head == "token" else nt.load_sequence_classifier
    model = nt.add_adapter(load(str(checkpoint), LABELS), "lora", nt.LoraConfig(rank=4))
    move_weights(model, 1)
    return model.network


@pytest.mark.parametrize("head", ["sequence", "token"])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_each_family_leaves_out(family, head, make_checkpoint):
    found = unpadding_of(network_of(make_checkpoint(family), head))
    assert (found is None) == (family in PADDED)
    if found is not None:
        assert found.first_alone == (head == "sequence" and family in FIRST_ALONE)


def batch_of(lengths):
    """Rows of these lengths, with what stands in padding."""
    width = max(lengths)
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    ids = (torch.arange(len(lengths) * width).view(-1, width) * 7 % 20 + 4).where(mask, torch.tensor(1))
    return {"input_ids": ids, "attention_mask": mask.long()}


def logits_and_gradients(network, inputs, arguments):
    network.zero_grad()
    logits = network(**inputs, **arguments).logits
    if logits.dim() == 3:
        logits = logits[inputs["attention_mask"].bool()]
    logits.square().sum().backward()
    return logits.detach(), {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("lengths", [LENGTHS, (5, 5), (6,)])
@pytest.mark.parametrize("head", ["sequence", "token"])
@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - PADDED))
def test_logits_and_gradients_are_those_of_padded_batches(family, head, lengths, make_checkpoint):
    network = network_of(make_checkpoint(family), head)
    inputs, unpadding = batch_of(lengths), unpadding_of(network)
    if family != "modernbert":  # which hides padding by fp32's lowest number, and in fp64 that is none
        network.double()
    exact, close = (1e-12, 1e-10) if network.dtype == torch.float64 else (1e-5, 1e-4)
    network.eval()
    expected, wanted = logits_and_gradients(network, inputs, {})
    found, gradients = logits_and_gradients(network, inputs, unpadding.arguments(inputs, network.device))
    assert torch.allclose(found, expected, atol=exact)
    assert gradients.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert torch.allclose(gradients[name], gradient, atol=close), name


@pytest.mark.parametrize("family", FAMILIES)
def test_without_a_layout_a_network_is_what_it_was_to_the_bit(family, make_checkpoint):
    network, inputs = network_of(make_checkpoint(family), "token").eval(), batch_of(LENGTHS)
    with torch.no_grad():
        before = network(**inputs).logits
        unpadding_of(network)
        assert torch.equal(network(**inputs).logits, before)


def watched(model):
    """How many rows and paddings the feed-forward part of each layer is given, by layer; filled as passes are made."""
    found = {}
    for number, layer in enumerate(encoder_of(plain_network(model)).encoder.layer):
        sizes = found[number] = []
        layer.intermediate.register_forward_hook(lambda _, args, __, to=sizes: to.append(args[0].shape[:-1].numel()))
    return found


def test_neither_training_nor_evaluation_computes_padding(checkpoint, tsv, conll, tmp_path):
    for data, read, task_class, load in (
        (nt.TextData(train=str(tsv)), nt.read_text_classification, nt.TextClassification, nt.load_sequence_classifier),
        (nt.NerData(train=str(conll)), nt.read_ner, nt.Ner, nt.load_token_classifier),
    ):
        splits = read(data)
        task = task_class.for_splits(splits, CONFIG[task_class]())
        model = nt.add_adapter(load(str(checkpoint), task.labels), "lora", nt.LoraConfig(rank=2))
        tokens, rows = (int(count) for count in (task.encode(splits.train, model).lengths.sum(), len(splits.train)))
        unpadding_of(model.network)  # which computes a few rows
        sizes = watched(model)
        nt.fit(model, task, train=splits.train, validation=[], config=ONE_EPOCH, run_dir=tmp_path / task.name)
        last = rows if task.head == "sequence" else tokens
        assert [sum(of_layer) for of_layer in sizes.values()] == [tokens, last]
        sizes = watched(model)
        nt.evaluate(model, task, "train", splits.train)
        assert [sum(of_layer) for of_layer in sizes.values()] == [tokens, last]


def test_from_any_number_of_threads(checkpoint):
    """A network is tried by one of them, and answers all while it is."""
    network = network_of(checkpoint, "sequence").eval()
    inputs = batch_of(LENGTHS)
    with torch.no_grad():
        expected = network(**inputs).logits

    def ask(_):
        with torch.no_grad():
            return network(**inputs, **unpadding_of(network).arguments(inputs, network.device)).logits

    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(ask, range(64)):
            assert torch.allclose(found, expected, atol=1e-5)


def test_recomputed_activations_are_the_same(checkpoint, tsv, tmp_path):
    splits = nt.read_text_classification(nt.TextData(train=str(tsv)))
    task = nt.TextClassification.for_splits(splits, nt.TextClassificationConfig())
    weights = []
    for checkpointing in (False, True):
        model = nt.load_sequence_classifier(str(checkpoint), task.labels)
        model = nt.add_adapter(model, "lora", nt.LoraConfig(rank=2))
        config = replace(ONE_EPOCH, gradient_checkpointing=checkpointing, dropout=0.1)
        run_dir = tmp_path / str(checkpointing)
        model = nt.fit(model, task, train=splits.train, validation=[], config=config, run_dir=run_dir)
        weights.append(trainable_state(model.network))
    assert all(torch.allclose(weights[1][name], weight, atol=1e-6) for name, weight in weights[0].items())


def test_where_padding_stands_first_the_head_reads_it_as_ever(checkpoint):
    """As a tokenizer that pads on the left makes batches: the first position is then no token."""
    network = network_of(checkpoint, "sequence").eval()
    inputs = batch_of(LENGTHS)
    inputs = {name: tensor.flip(1) for name, tensor in inputs.items()}
    with torch.no_grad():
        found = network(**inputs, **unpadding_of(network).arguments(inputs, network.device)).logits
        assert torch.allclose(found, network(**inputs).logits, atol=1e-5)


@pytest.mark.parametrize("lengths", [(3, 0, 2), (3, 2, 0)])
def test_so_are_rows_without_a_token(checkpoint, lengths):
    network = network_of(checkpoint, "sequence").train()
    inputs = batch_of(lengths)
    with torch.no_grad():
        network.eval()
        found = network(**inputs, **unpadding_of(network).arguments(inputs, network.device)).logits
        kept = torch.tensor([length > 0 for length in lengths])
        assert torch.allclose(found[kept], network(**inputs).logits[kept], atol=1e-5)


def test_a_device_is_not_asked_how_many_tokens_there_are(checkpoint):
    """It could only say when it is idle; "meta" cannot say at all."""
    unpadding, device = unpadding_of(network_of(checkpoint, "sequence")), torch.device("meta")
    (layout,) = unpadding.arguments(batch_of(LENGTHS), device).values()
    assert {layout.tokens.device, layout.positions.device, layout.firsts.device} == {device}
    assert layout.tokens.shape == (sum(LENGTHS),)


def test_nor_by_training_and_answering(checkpoint, tsv, tmp_path, monkeypatch):
    """Of each batch first what it leaves out is found, and then it is moved to the device."""
    done, find, move = [], Unpadding.arguments, Batch.to
    splits = nt.read_text_classification(nt.TextData(train=str(tsv)))
    task = nt.TextClassification.for_splits(splits, nt.TextClassificationConfig())
    model = nt.add_adapter(nt.load_sequence_classifier(str(checkpoint), task.labels), "lora", nt.LoraConfig(rank=2))
    assert unpadding_of(model.network)  # tried here, in its own way
    monkeypatch.setattr(Unpadding, "arguments", lambda *args: (done.append("found"), find(*args))[1])
    monkeypatch.setattr(Batch, "to", lambda *args: (done.append("moved"), move(*args))[1])
    model = nt.fit(model, task, train=splits.train, validation=splits.train, config=ONE_EPOCH, run_dir=tmp_path)
    steps = len(done)
    predictor = nt.Predictor(model, task)
    predictor.predict(["a great film"])
    predictor.embed(["a great film"])
    assert len(done) > steps > 4
    assert done == ["found", "moved"] * (len(done) // 2)


@pytest.mark.parametrize("other", ["eager", "sdpa"])
def test_another_attention_that_is_chosen_later_is_heeded(checkpoint, other):
    network = network_of(checkpoint, "sequence").eval()
    assert unpadding_of(network)
    network.get_base_model().set_attn_implementation(other)
    assert unpadding_of(network) is None


def test_a_copy_leaves_out_the_same(checkpoint):
    network = network_of(checkpoint, "sequence").eval()
    unpadding, inputs = unpadding_of(network), batch_of(LENGTHS)
    copy = deepcopy(network)
    assert unpadding_of(copy) == unpadding
    with torch.no_grad():
        found = copy(**inputs, **unpadding.arguments(inputs, network.device)).logits
        assert torch.allclose(found, network(**inputs).logits, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_trying_leaves_modes_random_numbers_and_the_screen_alone(family, make_checkpoint, capsys):
    network = network_of(make_checkpoint(family), "sequence").train()
    before = torch.get_rng_state()
    capsys.readouterr()  # what building the checkpoint has said
    unpadding_of(network)
    assert all(module.training for module in network.modules())
    assert torch.equal(torch.get_rng_state(), before)
    assert capsys.readouterr().err == ""
