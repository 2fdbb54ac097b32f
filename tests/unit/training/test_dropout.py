"""Dropout's own draws: as many as asked for, as large as before on average, and those of the whole in a part."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F

from nlp_transfer.training import dropout
from nlp_transfer.training.dropout import Draws, Part, Range

ROWS, WIDTH, HIDDEN = 8, 5, 16


def dropped_out(values, p, part=None, seed=0):
    torch.manual_seed(seed)
    with Draws(part):
        return F.dropout(values, p)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.9])
def test_the_share_and_the_mean_are_those_asked_for(p, dtype):
    found = dropped_out(torch.ones(1000, 1001, dtype=dtype), p).float()
    assert float((found == 0).float().mean()) == pytest.approx(p, abs=2e-3)
    assert float(found.mean()) == pytest.approx(1, abs=1e-2)
    assert len(found.unique()) == 2


def test_neighbours_are_dropped_apart_from_each_other():
    dropped = (dropped_out(torch.ones(1_000_000), 0.5) == 0).float() - 0.5
    for apart in (1, 2, 3, 4, 16, 64):
        assert abs(float((dropped[apart:] * dropped[:-apart]).mean())) < 1e-3


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_all_and_nothing(p):
    assert dropped_out(torch.ones(3, 4), p).tolist() == [[1 - p] * 4] * 3


def test_outside_training_nothing_is_dropped():
    with Draws(None):
        assert torch.equal(F.dropout(torch.ones(100), 0.5, training=False), torch.ones(100))


SHAPES = {
    "embeddings": ((ROWS, WIDTH, HIDDEN), lambda whole, rows, _: whole[rows]),
    "attention": ((ROWS, 2, WIDTH, WIDTH), lambda whole, rows, _: whole[rows]),
    "head": ((ROWS, HIDDEN), lambda whole, rows, _: whole[rows]),
    "tokens": ((30, 1, HIDDEN), lambda whole, _, tokens: whole[tokens]),
    "first tokens": ((ROWS, 1, HIDDEN), lambda whole, rows, _: whole[rows]),
}
PART = Part(Range(2, 3, ROWS), Range(7, 11, 30), WIDTH, rows_second=False)


@pytest.mark.parametrize("of_torch", [False, True])  # as on a GPU, where a whole micro-batch is left to torch
@pytest.mark.parametrize("shape", SHAPES)
def test_a_part_gets_what_it_gets_in_the_whole(shape, of_torch, monkeypatch):
    size, cut = SHAPES[shape]
    whole = dropped_out(torch.ones(size), 0.3)
    if of_torch:
        monkeypatch.setattr(dropout, "draw_bits", dropout.draw_as_torch)
        torch.manual_seed(0)
        whole = F.dropout(torch.ones(size), 0.3)
    expected = cut(whole, slice(2, 5), slice(7, 18))
    assert torch.equal(dropped_out(torch.ones(expected.shape), 0.3, PART), expected)


def test_a_part_on_a_gpu_is_scaled_as_the_whole_is(monkeypatch):
    """Not by 1 / 0.9 rounded to bf16, which is less by more than a thousandth."""
    monkeypatch.setattr(dropout, "draw_bits", dropout.draw_as_torch)
    values = torch.randn(3, WIDTH, HIDDEN, generator=torch.Generator().manual_seed(1)).bfloat16()
    found = dropped_out(values, 0.1, PART)
    assert torch.equal(found, (values.float() * found.ne(0) / 0.9).bfloat16())


def test_other_threads_and_what_comes_after_have_torchs_own():
    def as_torch():
        torch.manual_seed(3)
        return torch.nn.Dropout(0.5)(torch.ones(1000))

    torchs_own, expected = F.dropout, as_torch()
    with Draws(None), ThreadPoolExecutor() as pool:
        assert not torch.equal(as_torch(), expected)
        assert torch.equal(pool.submit(as_torch).result(), expected)
    assert F.dropout is torchs_own
    assert torch.equal(as_torch(), expected)


def test_one_within_another_leaves_the_outer_one_in_its_place():
    with Draws(PART) as outer:
        with Draws(None):
            pass
        assert dropout.current() is outer
    assert dropout.current() is None


def test_what_somebody_else_has_put_in_torchs_place_stands_there_again(monkeypatch):
    def other(values, *_):
        return values * 7

    monkeypatch.setattr(F, "dropout", other)
    with Draws(None), ThreadPoolExecutor() as pool:
        assert pool.submit(F.dropout, torch.ones(1)).result() == 7
    assert F.dropout is other
    with Draws(None):
        monkeypatch.setattr(F, "dropout", other)
    assert F.dropout is other


def test_what_checkpointing_computes_again_draws_as_before_in_whatever_thread():
    def again(context):
        with context:
            torch.manual_seed(0)
            return F.dropout(torch.ones(PART.rows.size, WIDTH, HIDDEN), 0.3), dropout.current()

    with Draws(PART):
        _, context = dropout.contexts_of_checkpoint()
    with ThreadPoolExecutor(1) as pool:
        found, draws = pool.submit(again, context).result()
        assert draws.part is PART
        assert pool.submit(dropout.current).result() is None
    assert torch.equal(found, dropped_out(torch.ones(PART.rows.size, WIDTH, HIDDEN), 0.3, PART))
