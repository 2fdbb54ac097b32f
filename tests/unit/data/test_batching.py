"""Steps hold the same rows however they are cut, and every row counts once an epoch."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from nlp_transfer.data.batching import BatchPlan, Step, inference_batches
from nlp_transfer.data.encoded import Batch, EncodedSplit, Padding, Row, pack
from nlp_transfer.labels import IGNORE_INDEX

NUM_ROWS = 1003
LENGTHS = np.clip(np.random.default_rng(0).lognormal(3, 0.8, NUM_ROWS).astype(np.int64), 3, 128)
TARGETS = np.maximum(1, LENGTHS - 2)
NO_LIMIT = 10**9


def make_plan(
    batch_size: int | None = None, batch_tokens: int = NO_LIMIT, micro_batches: int = 1, seed: int = 0
) -> BatchPlan:
    return BatchPlan(
        lengths=LENGTHS,
        num_targets=TARGETS,
        batch_size=batch_size,
        batch_tokens=batch_tokens,
        micro_batches_per_step=micro_batches,
        seed=seed,
    )


def rows_of(step: Step) -> list[int]:
    return [row for micro_batch in step.micro_batches for row in micro_batch]


def order(plan: BatchPlan, epoch: int) -> list[int]:
    return [row for step in plan.steps(epoch) for row in rows_of(step)]


def step_sets(plan: BatchPlan, epoch: int = 0) -> list[tuple[frozenset[int], int, bool]]:
    return [(frozenset(rows_of(step)), step.num_targets, step.ends_epoch) for step in plan.steps(epoch)]


def padded_size(micro_batch: Sequence[int]) -> int:
    return len(micro_batch) * int(LENGTHS[list(micro_batch)].max())


PLANS = pytest.mark.parametrize(
    "plan",
    [
        make_plan(batch_size=16),
        make_plan(batch_size=1),
        make_plan(batch_size=4, micro_batches=4),
        make_plan(batch_size=2 * NUM_ROWS),
        make_plan(batch_size=16, batch_tokens=256),
        make_plan(batch_tokens=512),
        make_plan(batch_tokens=256, micro_batches=4),
        make_plan(batch_tokens=1),
    ],
    ids=["16", "1", "4x4", "all", "16 and 256 tokens", "512 tokens", "256 tokens x4", "1 token"],
)


@PLANS
@pytest.mark.parametrize("epoch", [0, 7])
def test_every_row_stands_in_exactly_one_step_of_an_epoch(plan, epoch):
    steps = plan.steps(epoch)
    assert sorted(order(plan, epoch)) == list(range(NUM_ROWS))
    assert [step.ends_epoch for step in steps] == [False] * (len(steps) - 1) + [True]
    assert all(step.num_targets == TARGETS[rows_of(step)].sum() for step in steps)


@PLANS
def test_order_is_a_function_of_seed_and_epoch(plan):
    assert plan.steps(3) == plan.steps(3)


def test_neighbouring_seeds_and_epochs_share_no_order():
    drawn = [tuple(order(make_plan(batch_size=16, seed=seed), epoch)) for seed in range(4) for epoch in range(4)]
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize(("seed", "epoch"), [(0, 1), (1, 0), (1, 1), (5, 2)])
def test_rows_meet_different_rows_under_another_seed_or_epoch(seed, epoch):
    """But for the longest rows, which have few of their length to meet."""
    first = {rows for rows, _, _ in step_sets(make_plan(batch_size=16))}
    other = {rows for rows, _, _ in step_sets(make_plan(batch_size=16, seed=seed), epoch)}
    assert len(first & other) < len(first) / 10


@pytest.mark.parametrize(
    ("batch_size", "accumulation", "processes"),
    [(8, 2, 1), (4, 4, 1), (1, 16, 1), (8, 1, 2), (4, 2, 2), (1, 8, 2), (4, 1, 4)],
)
def test_a_step_holds_the_same_rows_however_it_is_cut_and_spread(batch_size, accumulation, processes):
    spread = make_plan(batch_size=batch_size, micro_batches=accumulation * processes)
    for epoch in (0, 1):
        assert step_sets(spread, epoch) == step_sets(make_plan(batch_size=16), epoch)


@pytest.mark.parametrize("batch_tokens", [64, 200, 10_000])
def test_a_token_limit_cuts_micro_batches_and_leaves_the_steps_alone(batch_tokens):
    assert step_sets(make_plan(batch_size=16, batch_tokens=batch_tokens)) == step_sets(make_plan(batch_size=16))


@pytest.mark.parametrize(("batch_tokens", "micro_batches"), [(128, 2), (64, 4), (32, 8)])
def test_a_token_budget_gives_the_same_steps_however_it_is_spread(batch_tokens, micro_batches):
    spread = make_plan(batch_tokens=batch_tokens, micro_batches=micro_batches)
    assert step_sets(spread) == step_sets(make_plan(batch_tokens=256))


@pytest.mark.parametrize("batch_size", [None, 16])
@pytest.mark.parametrize(("batch_tokens", "micro_batches"), [(128, 1), (500, 1), (128, 4), (50, 2)])
def test_no_micro_batch_exceeds_the_token_budget_padding_included(batch_size, batch_tokens, micro_batches):
    for step in make_plan(batch_size, batch_tokens, micro_batches).steps(0):
        assert all(padded_size(micro) <= batch_tokens or len(micro) == 1 for micro in step.micro_batches)
        if batch_size is None:
            assert padded_size(rows_of(step)) <= batch_tokens * micro_batches or len(rows_of(step)) == 1


@pytest.mark.parametrize(("batch_size", "micro_batches"), [(16, 1), (4, 4), (5, 3)])
def test_steps_are_full_but_for_the_smallest(batch_size, micro_batches):
    steps = make_plan(batch_size=batch_size, micro_batches=micro_batches).steps(0)
    whole = batch_size * micro_batches
    assert sorted(len(rows_of(step)) for step in steps)[1:] == [whole] * (NUM_ROWS // whole)


def test_rows_of_like_length_stand_together():
    plan = make_plan(batch_size=16)
    shuffled = np.random.default_rng(0).permutation(NUM_ROWS)
    batches = [shuffled[start : start + 16] for start in range(0, NUM_ROWS, 16)]
    unsorted = 1 - LENGTHS.sum() / sum(map(padded_size, batches))
    assert 0 <= plan.padding_share(0) < unsorted / 3


@PLANS
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_share_a_step_without_overlap_in_equally_many_rounds(plan, processes):
    for step in plan.steps(0):
        shares = [step.share(process, processes) for process in range(processes)]
        assert len({len(share) for share in shares}) == 1
        assert sorted(micro for share in shares for micro in share if micro) == sorted(step.micro_batches)


@pytest.mark.parametrize("batch_tokens", [1, 128, 1000, NO_LIMIT])
def test_prediction_reads_every_row_once_within_the_budget_and_longest_first(batch_tokens):
    batches = inference_batches(LENGTHS, batch_tokens, pass_tokens=64)
    assert sorted(row for batch in batches for row in batch) == list(range(NUM_ROWS))
    assert all(padded_size(batch) <= batch_tokens or len(batch) == 1 for batch in batches)
    lengths = [int(LENGTHS[row]) for batch in batches for row in batch]
    assert lengths == sorted(lengths, reverse=True)


@pytest.mark.parametrize("pass_tokens", [1, 16, 64, 1000])
def test_prediction_computes_the_least_that_any_cut_of_the_sorted_rows_would(pass_tokens):
    def cost(batches):
        return sum(padded_size(batch) + pass_tokens for batch in batches)

    lengths = LENGTHS[:11]
    order = np.argsort(-lengths, kind="stable")
    best = min(
        cost([tuple(part) for part in np.split(order, [i + 1 for i in range(10) if cuts >> i & 1])])
        for cuts in range(2**10)
    )
    assert cost(inference_batches(lengths, NO_LIMIT, pass_tokens)) == best


def make_split(*labels: int | list[int] | list[float], side: str = "right", token_labels: bool = False) -> EncodedSplit:
    """Rows of 3, 2, ... tokens, the longest first."""
    rows = []
    for number, label in enumerate(labels):
        length = 3 - number
        inputs = {
            "input_ids": list(range(5, 5 + length)),
            "attention_mask": [1] * length,
            "token_type_ids": [2] * length,
        }
        rows.append(Row(inputs, label, number))
    padding = Padding({"input_ids": 9, "attention_mask": 0, "token_type_ids": 3}, side)
    return pack(rows, padding, token_labels=token_labels)


@pytest.mark.parametrize(
    ("side", "ids", "mask", "types", "labels"),
    [
        ("right", [5, 6, 9], [1, 1, 0], [2, 2, 3], [1, IGNORE_INDEX, IGNORE_INDEX]),
        ("left", [9, 5, 6], [0, 1, 1], [3, 2, 2], [IGNORE_INDEX, 1, IGNORE_INDEX]),
    ],
)
def test_shorter_rows_are_filled_up_on_the_side_of_the_model(side, ids, mask, types, labels):
    split = make_split([IGNORE_INDEX, 0, IGNORE_INDEX], [1, IGNORE_INDEX], side=side, token_labels=True)
    batch = split.batch((0, 1))
    assert {name: tensor.shape for name, tensor in batch.inputs.items()} == dict.fromkeys(batch.inputs, (2, 3))
    assert {name: tensor[1].tolist() for name, tensor in batch.inputs.items()} == {
        "input_ids": ids,
        "attention_mask": mask,
        "token_type_ids": types,
    }
    assert batch.labels[1].tolist() == labels
    assert batch.inputs["input_ids"].dtype == batch.labels.dtype == torch.int64


def test_a_batch_is_as_wide_as_its_longest_row():
    assert make_split(0, 1, 1).batch((1, 2)).inputs["input_ids"].shape == (2, 2)


@pytest.mark.parametrize(
    ("labels", "token_labels", "shape", "targets"),
    [
        ((1, 0), False, (2,), [1, 1]),
        (([1.0, 0.0], [0.0, 0.0]), False, (2, 2), [2, 2]),
        (([IGNORE_INDEX, 1, 0], [0, IGNORE_INDEX]), True, (2, 3), [2, 1]),
    ],
    ids=["one label", "multi-label", "label a token"],
)
def test_targets_are_the_positions_that_are_not_ignored(labels, token_labels, shape, targets):
    split = make_split(*labels, token_labels=token_labels)
    assert split.batch((0, 1)).labels.shape == shape
    assert split.num_targets.tolist() == targets
    assert split.lengths.tolist() == [3, 2]


@pytest.mark.parametrize(
    ("labels", "token_labels"),
    [((1, 0), False), (([1.0, 0.0], [0.0, 0.0]), False), (([IGNORE_INDEX, 1, 0], [0, 1]), True)],
    ids=["one label", "multi-label", "label a token"],
)
def test_an_empty_batch_has_no_target_and_the_form_of_the_others(labels, token_labels):
    split = make_split(*labels, token_labels=token_labels)
    empty, other = split.empty_batch(), split.batch((1,))
    assert (empty.labels == IGNORE_INDEX).all()
    assert empty.labels.shape == other.labels.shape
    assert empty.labels.dtype == other.labels.dtype
    assert all(torch.equal(empty.inputs[name], other.inputs[name]) for name in other.inputs)


def test_a_batch_goes_to_a_gpu_through_pinned_memory_without_waiting(monkeypatch):
    """There need not be a GPU: what torch is asked for is looked at."""
    copies = []

    def to(tensor, device, *, non_blocking):
        copies.append((tensor.is_marked, str(device), non_blocking))
        return tensor

    def pinned(tensor):
        copied = tensor.clone()
        copied.is_marked = True
        return copied

    batch = Batch({"input_ids": torch.ones(2, 3), "attention_mask": torch.ones(2, 3)}, torch.zeros(2), (0, 1))
    monkeypatch.setattr(torch.Tensor, "is_marked", False, raising=False)
    monkeypatch.setattr(torch.Tensor, "pin_memory", pinned)
    monkeypatch.setattr(torch.Tensor, "to", to)
    batch.to(torch.device("cuda"))
    batch.to(torch.device("cpu"))
    assert copies == [(True, "cuda", True)] * 3 + [(False, "cpu", True)] * 3
