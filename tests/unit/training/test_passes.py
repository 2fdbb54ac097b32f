"""When memory runs out, the same step is made in smaller parts, and comes out the same."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass
from unittest import mock

import pytest
import torch
from torch import Tensor

import nlp_transfer as nt
from nlp_transfer.adapters.trainable import trainable_state
from nlp_transfer.training import fit as fit_module, passes, prepare as prepare_module
from nlp_transfer.training.dropout import Draws, Part, Range
from tests.conftest import FAMILIES

SAME = 1e-6
OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 1 MiB."


@dataclass
class Memory:
    """Holds so many rows at once from the given call on."""

    rows: int = 10**9
    from_call: int = 0
    calls: int = 0
    error: Exception = torch.OutOfMemoryError(OUT_OF_MEMORY)

    def use(self, rows: int) -> None:
        self.calls += 1
        if self.calls > self.from_call and rows > self.rows:
            raise self.error


MEMORY = Memory()


class Tight(nt.TextClassification):
    """Needs memory for its loss, after the whole forward pass."""

    def loss_sum(self, logits: Tensor, labels: Tensor) -> Tensor:
        MEMORY.use(len(labels))
        return super().loss_sum(logits, labels)


class TightNer(nt.Ner):
    def loss_sum(self, logits: Tensor, labels: Tensor) -> Tensor:
        MEMORY.use(len(labels))
        return super().loss_sum(logits, labels)


@pytest.fixture
def train(tsv, conll, tmp_path, monkeypatch):
    def run(checkpoint, memory: Memory, corpus: str = "tsv", **settings: object) -> dict[str, Tensor]:
        monkeypatch.setattr("tests.unit.training.test_passes.MEMORY", memory)
        if corpus == "tsv":
            splits = nt.read_text_classification(nt.TextData(train=str(tsv)))
            task = Tight.for_splits(splits, nt.TextClassificationConfig())
            model = nt.load_sequence_classifier(str(checkpoint), task.labels)
        else:
            splits = nt.read_ner(nt.NerData(train=str(conll)))
            task = TightNer.for_splits(splits, nt.NerConfig())
            model = nt.load_token_classifier(str(checkpoint), task.labels)
        model = nt.add_adapter(model, "lora", nt.LoraConfig(rank=2, dropout=0.2))
        config = nt.TrainingConfig(
            **{"num_epochs": 1, "batch_size": 8, "mixed_precision": "no", "dropout": 0.1} | settings
        )
        run_dir = tmp_path / f"run-{memory.rows}"
        model = nt.fit(model, task, train=splits.train, validation=splits.validation, config=config, run_dir=run_dir)
        return {name: weight.clone() for name, weight in trainable_state(model.network).items()}

    return run


def difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("corpus", ["tsv", "conll"])
def test_a_split_step_gives_the_weights_of_the_whole_one_dropout_included(make_checkpoint, train, family, corpus):
    checkpoint = make_checkpoint(family)
    whole = train(checkpoint, Memory(), corpus)
    split = train(checkpoint, Memory(rows=3, from_call=2), corpus)
    assert difference(whole, split) <= SAME


@pytest.mark.parametrize("family", ["bert", "deberta-v2", "xlnet"])
def test_so_does_one_that_is_made_row_by_row(make_checkpoint, train, family):
    checkpoint = make_checkpoint(family)
    assert difference(train(checkpoint, Memory()), train(checkpoint, Memory(rows=1))) <= SAME


def test_so_does_one_whose_activations_are_computed_twice(checkpoint, train):
    whole = train(checkpoint, Memory())
    assert difference(whole, train(checkpoint, Memory(rows=3), gradient_checkpointing=True)) <= SAME


def test_the_comparison_would_catch_a_part_that_draws_dropout_anew(checkpoint, train, monkeypatch):
    whole = train(checkpoint, Memory())
    monkeypatch.setattr(passes, "part_of", lambda *_, **__: None)
    assert difference(whole, train(checkpoint, Memory(rows=3))) > 1000 * SAME


def test_it_is_said_once_and_remembered(checkpoint, train, tmp_path, capsys):
    memory = Memory(rows=3)
    train(checkpoint, memory)
    said = [line for line in capsys.readouterr().err.splitlines() if "Memory ran out" in line]
    # halved until it fits: 8 rows, 4, 2; later micro-batches of other widths may need it once more
    assert 2 <= len(said) <= 3, said
    assert "Memory ran out (CUDA out of memory): from here on a forward pass holds at most" in said[0]
    state = json.loads(next((tmp_path / "run-3" / "checkpoints").glob("*/state.json")).read_text())
    assert state["max_tokens"] == [int(re.search(r"at most ([\d,]+)", said[-1]).group(1).replace(",", ""))]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 1 bytes")])
def test_the_processor_can_run_out_of_memory_too(checkpoint, train, error):
    assert train(checkpoint, Memory(rows=4, error=error))


def test_no_memory_for_a_single_row_ends_the_run_with_advice(checkpoint, train):
    with pytest.raises(nt.TrainingError, match=r"for a single row of \d+ tokens, .* training.batch_tokens"):
        train(checkpoint, Memory(rows=0))


def test_nor_do_other_micro_batches_of_the_step_keep_it_going(monkeypatch):
    """One long row does not fit, and short rows that do could be made fewer for ever."""
    monkeypatch.setattr(passes, "means_gradients", lambda _: False)
    batches = [mock.Mock(num_rows=rows, width=width) for rows, width in ((1, 512), (32, 8))]
    limits: list[int] = []
    while not limits or limits[-1] > 8:
        limits.append(passes.smaller(mock.Mock(), batches, limits[-1] if limits else None, "out of memory"))
    assert limits == [128, 64, 32, 16, 8]
    with pytest.raises(nt.TrainingError, match="for a single row of 512 tokens"):
        passes.smaller(mock.Mock(), batches, 8, "out of memory")


def test_another_error_is_not_taken_for_a_want_of_memory(checkpoint, train):
    with pytest.raises(RuntimeError, match="something else"):
        train(checkpoint, Memory(rows=3, error=RuntimeError("something else")))


def test_a_part_holds_less_memory_than_the_whole_and_the_mask_of_its_own_rows_only():
    held = {}
    for rows in (32, 8, 1):
        storages: dict[int, int] = {}

        def keep(tensor: Tensor, storages=storages) -> Tensor:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        hidden = torch.ones(rows, 8, 64, requires_grad=True)
        part = Part(Range(0, rows, 32), Range(0, 8 * rows, 256), 8, rows_second=False)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), Draws(part):
            torch.nn.functional.dropout(hidden, 0.1)
        held[rows] = sum(storages.values())
    assert held[8] <= held[32] / 4
    assert held[1] <= held[32] / 32


def scaled_run(checkpoint, tsv, tmp_path, loss_sum) -> tuple[nt.Model, dict[str, Tensor], list[dict]]:
    """With a scaler on the CPU, as fp16 has one on a GPU."""
    make = prepare_module.make_accelerator

    def with_scaler(*args):
        accelerator = make(*args)
        accelerator.scaler = scaler = torch.amp.GradScaler("cpu")
        accelerator.unscale_gradients = lambda: [scaler.unscale_(one.optimizer) for one in accelerator._optimizers]
        return accelerator

    splits = nt.read_text_classification(nt.TextData(train=str(tsv)))
    task = nt.TextClassification.for_splits(splits, nt.TextClassificationConfig())
    model = nt.load_sequence_classifier(checkpoint, task.labels)
    model = nt.add_adapter(model, "lora", nt.LoraConfig(rank=2))
    before = {name: weight.clone() for name, weight in trainable_state(model.network).items()}
    config = nt.TrainingConfig(num_epochs=8, batch_size=8, mixed_precision="no")
    with (
        mock.patch.object(prepare_module, "make_accelerator", with_scaler),
        mock.patch.object(nt.TextClassification, "loss_sum", loss_sum),
        contextlib.suppress(nt.TrainingError),
    ):
        nt.fit(model, task, train=splits.train, validation=splits.validation, config=config, run_dir=tmp_path)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    return model, before, [line for line in log if "loss" in line]


def test_with_a_scaler_an_infinite_loss_with_a_finite_gradient_moves_nothing(checkpoint, tsv, tmp_path):
    model, before, log = scaled_run(
        checkpoint, tsv, tmp_path, lambda _, logits, __: logits.sum() + torch.tensor(torch.inf)
    )
    assert all(torch.equal(weight, before[name]) for name, weight in trainable_state(model.network).items())
    assert len(log) == fit_module.MAX_SKIPPED_IN_A_ROW  # and then the run ends


def test_with_a_scaler_a_gradient_that_stays_infinite_ends_the_run(checkpoint, tsv, tmp_path, capsys):
    class NoGradient(torch.autograd.Function):
        @staticmethod
        def forward(_, value):
            return value

        @staticmethod
        def backward(_, gradient):
            return gradient * torch.nan

    _, _, log = scaled_run(checkpoint, tsv, tmp_path, lambda _, logits, __: NoGradient.apply(logits.square().sum()))
    # the scale is halved 17 times, from 65,536 to below 1, before this is no overflow any more
    assert len(log) == 16 + fit_module.MAX_SKIPPED_IN_A_ROW
    assert all(line["skipped"] for line in log)
    assert "the norm of its gradient nan" in capsys.readouterr().err
