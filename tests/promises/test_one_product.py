"""LoRA in one matrix product each way: PEFT's numbers, names and files, with less kept in memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import Linear

import nlp_transfer as nt
from nlp_transfer.adapters.one_product import (
    OneProductLinear,
    folded,
    is_one_product,
    one_product_layers,
    use_one_product,
    weights_held,
)
from tests.adapters_at_random import move_weights
from tests.conftest import FAMILIES

LABELS = nt.LabelSet(("a", "b", "c"))
LOAD = {"sequence": nt.load_sequence_classifier, "token": nt.load_token_classifier}


def with_lora(checkpoint, head="sequence", **lora):
    model = nt.add_adapter(LOAD[head](str(checkpoint), LABELS), "lora", nt.LoraConfig(rank=4, **lora))
    move_weights(model, 1)
    return model.network.eval()


@contextmanager
def as_peft_has_it(network):
    layers = one_product_layers(network)
    for layer in layers:
        layer.__class__ = Linear
    yield
    use_one_product(network)
    assert len(one_product_layers(network)) == len(layers)


def loss_and_gradients(network, dtype=None, rows=3):
    """In the type that is given, or the network's own."""
    ids = torch.arange(4, 4 + 10 * rows).reshape(rows, 10) % 24 + 4
    network.zero_grad()
    with torch.autocast("cpu", dtype, enabled=dtype is not None), weights_held(network):
        logits = network(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    gold = torch.arange(logits.numel() // 3) % 3
    loss = F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)).reshape(-1, 3), gold)
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def distance(found, expected) -> float:
    """Of all gradients together, in proportion to their size."""
    assert found.keys() == expected.keys()
    apart = sum(float((found[name] - expected[name]).square().sum()) for name in expected)
    return (apart / sum(float(g.square().sum()) for g in expected.values())) ** 0.5


@pytest.mark.parametrize("rows", [3, 20])  # of ten tokens: fewer than layers have inputs, and more
@pytest.mark.parametrize("head", LOAD)
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_those_of_peft(family, head, rows, make_checkpoint):
    network = with_lora(make_checkpoint(family), head, use_rslora=head == "token")
    assert is_one_product(network)
    single = loss_and_gradients(network, rows=rows)[1]
    bf16 = loss_and_gradients(network, torch.bfloat16, rows)[1]
    with as_peft_has_it(network):
        peft_single = loss_and_gradients(network, rows=rows)[1]
        peft_bf16 = loss_and_gradients(network, torch.bfloat16, rows)[1]
    network.double()
    loss, found = loss_and_gradients(network, rows=rows)
    with as_peft_has_it(network):
        peft_loss, expected = loss_and_gradients(network, rows=rows)
    assert loss == pytest.approx(peft_loss, abs=1e-12)
    assert distance(found, expected) < 1e-12
    for found, peft in ((single, peft_single), (bf16, peft_bf16)):
        # rounding, of another order of sums; a wrong formula is 1 apart
        assert distance(found, expected) < max(1e-4, 3 * distance(peft, expected))


@pytest.mark.parametrize("rows", [1, 50])
def test_less_is_kept_for_the_way_back(checkpoint, rows):
    network = with_lora(checkpoint)

    def kept() -> int:
        """Bytes, of tensors that are no weights."""
        places = {p.data_ptr() for p in network.parameters()}
        sizes = {}

        def note(tensor):
            sizes[tensor.data_ptr()] = tensor.nbytes if tensor.data_ptr() not in places else 0
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss_and_gradients(network, rows=rows)
        return sum(sizes.values())

    ours = kept()
    with as_peft_has_it(network):
        assert ours < kept()


@pytest.mark.parametrize("lora", [{"dropout": 0.5}, {"use_dora": True}])
def test_what_is_more_than_low_rank_products_is_left_to_peft(checkpoint, lora):
    network = with_lora(checkpoint, **lora)
    network.train()
    assert not is_one_product(network)
    torch.manual_seed(0)
    found = loss_and_gradients(network)
    with as_peft_has_it(network):
        torch.manual_seed(0)
        expected = loss_and_gradients(network)
    assert found[0] == expected[0]
    assert distance(found[1], expected[1]) == 0


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_a_base_that_is_trained_itself_is_left_to_peft(checkpoint, name):
    network = with_lora(checkpoint).train()
    parameter = getattr(one_product_layers(network)[0].base_layer, name).requires_grad_(True)
    loss_and_gradients(network)
    assert parameter.grad is not None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_adapters_in_fp32_go_with_a_base_in_half(checkpoint, dtype):
    network = with_lora(checkpoint)
    expected = network(input_ids=torch.arange(4, 14)[None]).logits
    for layer in one_product_layers(network):
        layer.base_layer.to(dtype)
    plain = folded(network)
    with torch.autocast("cpu", torch.bfloat16):
        found = plain(input_ids=torch.arange(4, 14)[None]).logits
    assert torch.allclose(found.float(), expected, atol=0.2)


def test_many_threads_hold_the_weights_and_get_the_same_bits(checkpoint):
    network, ids = with_lora(checkpoint), torch.arange(4, 24).reshape(2, 10)

    def ask(_):
        with torch.no_grad(), weights_held(network):
            return network(input_ids=ids).logits

    expected = ask(0)
    with ThreadPoolExecutor(4) as pool:
        assert all(torch.equal(found, expected) for found in pool.map(ask, range(400)))
    assert all((layer.holders, layer.formed) == (0, None) for layer in one_product_layers(network))


def test_several_adapters_and_none_are_left_to_peft(checkpoint):
    network = with_lora(checkpoint)
    ids = torch.arange(4, 14).reshape(1, 10)
    with torch.no_grad():
        with network.disable_adapter():
            bare = network(input_ids=ids).logits
        assert not torch.equal(network(input_ids=ids).logits, bare)
        network.merge_adapter()
        assert torch.allclose(network(input_ids=ids).logits, network.get_base_model()(input_ids=ids).logits)
        network.unmerge_adapter()
        for layer in one_product_layers(network):
            layer.update_layer("second", 2, lora_alpha=4, config=network.peft_config["default"])
            layer.set_adapter(["default", "second"])
        assert not is_one_product(network)


def test_weights_are_formed_once_within_and_anew_after_each_change(checkpoint, monkeypatch):
    network, formed = with_lora(checkpoint), []
    addmm = torch.addmm
    monkeypatch.setattr(torch, "addmm", lambda *args, **kwargs: formed.append(1) or addmm(*args, **kwargs))
    number = len(one_product_layers(network))
    network.train()
    for _ in range(3):
        network(input_ids=torch.tensor([[5, 6, 7]]))
    assert not formed  # for few rows the adapter's part is added
    many = torch.full((40, 5), 6)
    for _ in range(3):
        network(input_ids=many)
    assert len(formed) == 3 * number
    formed.clear()
    with weights_held(network):
        for _ in range(3):
            network(input_ids=torch.tensor([[5, 6, 7]]))
    assert len(formed) == number
    network.eval()
    assert all(layer.formed is None for layer in one_product_layers(network))
    with torch.no_grad(), weights_held(network):
        before = network(input_ids=torch.tensor([[5, 6, 7]])).logits
        for layer in one_product_layers(network):
            layer.low_rank[1].mul_(2)
        assert not torch.equal(network(input_ids=torch.tensor([[5, 6, 7]])).logits, before)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folded_network_answers_the_same_to_the_last_bit(family, make_checkpoint):
    network = with_lora(make_checkpoint(family))
    ids = torch.arange(4, 24).reshape(2, 10)
    with torch.no_grad():
        with weights_held(network):
            before = network(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        plain = folded(network)
        assert torch.equal(plain(input_ids=ids, attention_mask=torch.ones_like(ids)).logits, before)
    assert not [module for module in plain.modules() if isinstance(module, Linear)]


def test_what_cannot_be_folded_stays_as_it_is(checkpoint):
    network = with_lora(checkpoint, use_dora=True)
    assert folded(network) is network


def test_names_stay_those_of_peft(checkpoint):
    network = with_lora(checkpoint)
    names = list(network.state_dict())
    with as_peft_has_it(network):
        assert list(network.state_dict()) == names
    assert all(isinstance(layer, OneProductLinear) for layer in network.modules() if isinstance(layer, Linear))
