"""The best epoch is kept, a run stops when asked to, and a loss that is no number moves no weight."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

import nlp_transfer as nt
from nlp_transfer.adapters.lora import plain_network
from nlp_transfer.adapters.trainable import trainable_state
from nlp_transfer.checkpoints import encoder_of
from nlp_transfer.data.batching import Step
from nlp_transfer.data.loading import Loading
from nlp_transfer.training import fit as fit_module, resume
from nlp_transfer.training.defaults import plan_training
from nlp_transfer.training.loop import take_step
from nlp_transfer.training.precision import make_accelerator
from nlp_transfer.training.resume import restore_optimizer
from nlp_transfer.training.state import Progress, TrainState


@dataclass(frozen=True, kw_only=True)
class Scripted(nt.TextClassification):
    """Scores as the script says, one an epoch, whatever was predicted."""

    script: tuple[float, ...] = (0.0,) * 9
    scored: list[float] = field(default_factory=list, compare=False)
    nan_at: tuple[int, ...] = ()
    steps: list[int] = field(default_factory=list, compare=False)

    def score(self, predictions, examples) -> nt.Score:
        self.scored.append(self.script[len(self.scored)])
        score = super().score(predictions, examples)
        return replace(score, metrics=score.metrics | {"accuracy": self.scored[-1]})

    def loss_sum(self, logits: Tensor, labels: Tensor) -> Tensor:
        self.steps.append(1)
        loss = super().loss_sum(logits, labels)
        return loss * torch.nan if len(self.steps) in self.nan_at else loss


@pytest.fixture
def fit(checkpoint, tsv, tmp_path, monkeypatch):
    """Train a scripted task; gives the model and the weights after each epoch."""
    after: list[dict[str, Tensor]] = []
    validate = fit_module.Session._validate

    def watch(session):
        after.append({name: tensor.clone() for name, tensor in trainable_state(session.run.network).items()})
        return validate(session)

    monkeypatch.setattr(fit_module.Session, "_validate", watch)

    def run(task: dict[str, object], **settings: object) -> tuple[nt.Model, list[dict[str, Tensor]]]:
        splits = nt.read_text_classification(nt.TextData(train=str(tsv)))
        scripted = Scripted(labels=nt.LabelSet(("blame", "praise")), **task)
        model = nt.load_sequence_classifier(checkpoint, scripted.labels)
        model = nt.add_adapter(model, "lora", nt.LoraConfig(rank=2))
        config = nt.TrainingConfig(mixed_precision="no", **{"num_epochs": 3, "batch_size": 8} | settings)
        parts = {"train": splits.train, "validation": splits.validation}
        return nt.fit(model, scripted, **parts, config=config, run_dir=tmp_path), after

    return run


def log_of(run_dir: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("script", "best"), [((0.1, 0.9, 0.5), 1), ((0.9, 0.9, 0.9), 0), ((0.1, 0.2, 0.3), 2)])
def test_the_model_is_that_of_the_best_epoch_and_of_equals_the_first(fit, script, best):
    model, after = fit({"script": script})
    for name, tensor in trainable_state(model.network).items():
        assert torch.equal(tensor, after[best][name]), name


@pytest.mark.parametrize(
    ("progress", "done"),
    [(Progress(), 0), (Progress(epoch=1, steps_in_epoch=2), 15), (Progress(epoch=2), 20), (Progress(epoch=3), 30)],
)
def test_what_was_trained_before_a_run_goes_on_is_known(progress, done):
    """Three epochs of ten rows, in steps of one to four."""
    steps = [Step(((0,),), 1, False), Step(((1, 2), (3, 4)), 4, False), Step(((5, 6, 7, 8, 9),), 5, True)]
    plan = SimpleNamespace(num_epochs=3, batches=SimpleNamespace(steps=lambda _: steps))
    run = SimpleNamespace(state=SimpleNamespace(progress=progress), plan=plan, split=range(10))
    assert (fit_module.rows_done(run), fit_module.all_rows(run)) == (done, 30)


def test_what_the_optimizer_counts_lies_where_the_weights_lie():
    """As a GPU's fused AdamW demands; "meta" stands for the GPU."""
    weight, optimizer = nn.Parameter(torch.empty(2, 3, device="meta")), SimpleNamespace(state=defaultdict(dict))
    run = SimpleNamespace(state=SimpleNamespace(optimizer=SimpleNamespace(optimizer=optimizer)))
    saved = {"layer.weight/step": torch.tensor(3.0), "layer.weight/exp_avg": torch.zeros(2, 3)}
    restore_optimizer(run, {"layer.weight": weight}, iter(saved.items()))
    assert {name: tensor.device.type for name, tensor in optimizer.state[weight].items()} == {
        "step": "meta",
        "exp_avg": "meta",
    }


@pytest.mark.parametrize(("is_sharded", "limit"), [(False, 64), (True, None)])
def test_a_limit_of_memory_is_left_behind_where_passes_cannot_be_made_smaller(monkeypatch, is_sharded, limit):
    monkeypatch.setattr(resume, "means_gradients", lambda _: is_sharded)
    accelerator = SimpleNamespace(num_processes=1, process_index=0, scaler=None)
    state = SimpleNamespace(progress=Progress(), optimizer=SimpleNamespace(optimizer=None))
    run = SimpleNamespace(network=nn.Linear(1, 1), state=state, accelerator=accelerator)
    saved = {"progress": asdict(Progress(step=7)), "max_tokens": [64], "scaler": None}
    resume.restore(run, saved, SimpleNamespace(weights={}, optimizer={}))
    assert (state.progress.step, state.progress.max_tokens) == (7, limit)


def test_a_model_that_was_trained_is_trained_again_in_the_precision_asked_for(checkpoint, tsv, tmp_path):
    splits = nt.read_text_classification(nt.TextData(train=str(tsv)))
    task = nt.TextClassification.for_splits(splits, nt.TextClassificationConfig())
    model = nt.add_adapter(nt.load_sequence_classifier(checkpoint, task.labels), "lora", nt.LoraConfig(rank=2))
    seen: set[torch.dtype] = set()
    layer = encoder_of(plain_network(model)).encoder.layer[0].intermediate.dense
    layer.register_forward_hook(lambda *found: seen.add(found[-1].dtype))
    for number, precision in enumerate(["bf16", "bf16", "no", "bf16"]):
        config = nt.TrainingConfig(num_epochs=1, batch_size=8, mixed_precision=precision)
        seen.clear()
        parts = {"train": splits.train, "validation": splits.validation}
        model = nt.fit(model, task, **parts, config=config, run_dir=tmp_path / str(number))
        assert (torch.bfloat16 in seen) == (precision == "bf16"), number
        seen.clear()
        nt.evaluate(model, task, "validation", splits.validation)
        assert seen == {torch.float32}


def test_a_run_that_an_error_ended_leaves_no_precision_behind(checkpoint, tsv, tmp_path):
    splits = nt.read_text_classification(nt.TextData(train=str(tsv)))
    labels = nt.LabelSet(("blame", "praise"))
    model = nt.load_sequence_classifier(checkpoint, labels)
    seen: set[torch.dtype] = set()
    layer = encoder_of(model.network).encoder.layer[0].intermediate.dense
    layer.register_forward_hook(lambda *found: seen.add(found[-1].dtype))
    for number, precision in enumerate(["bf16", "no"]):
        task = Scripted(labels=labels, script=() if precision == "bf16" else (0.5,))  # no score: an IndexError
        config = nt.TrainingConfig(num_epochs=1, batch_size=8, mixed_precision=precision)
        seen.clear()
        parts = {"train": splits.train, "validation": splits.validation}
        with pytest.raises(IndexError) if precision == "bf16" else nullcontext():
            nt.fit(model, task, **parts, config=config, run_dir=tmp_path / str(number))
    assert seen == {torch.float32}
    assert model.network(input_ids=torch.tensor([[1, 2]]), return_dict=False)[0].shape == (1, 2)


def test_a_run_stops_when_the_score_has_not_risen_for_as_many_epochs_as_allowed(fit, tmp_path):
    _, after = fit({"script": (0.5, 0.4, 0.3, 0.9)}, num_epochs=4, early_stopping_patience=2)
    assert len(after) == 3
    assert [line["epoch"] for line in log_of(tmp_path) if "validation" in line] == [1, 2, 3]


def test_a_run_that_has_stopped_early_computes_nothing_when_it_is_started_again(fit, monkeypatch):
    fit({"script": (0.5, 0.4, 0.3, 0.9)}, num_epochs=4, early_stopping_patience=2)
    filled: list[object] = []
    monkeypatch.setattr(fit_module, "fill_trunk", lambda *_: filled.append(1))
    _, after = fit({"script": (0.5, 0.4, 0.3, 0.9)}, num_epochs=4, early_stopping_patience=2)
    assert (len(after), filled) == (3, [])


def test_a_step_without_a_finite_loss_moves_no_weight_and_is_said_with_its_rows(fit, tmp_path, capsys):
    model, _ = fit({"nan_at": (3,)})
    steps = [line for line in log_of(tmp_path) if "loss" in line]
    assert [line["step"] for line in steps if line["loss"] is None] == [3]
    assert [line["step"] for line in steps if "skipped" in line] == [3]
    assert steps[3]["learning_rate"] == steps[2]["learning_rate"]  # the schedule goes with the weights
    assert all(weight.isfinite().all() for weight in trainable_state(model.network).values())
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "nan" in line]
    assert re.match(r"The loss of step 3 is nan, .*learning rate .*; 8 examples: \S+train\.tsv:\d+, ", line), line
    assert line.endswith("The step is left out.")


@pytest.mark.parametrize(
    ("nan_at", "settings", "step"),
    [((3,), {"on_nonfinite": "stop"}, 3), (tuple(range(2, 99)), {}, 11), ((3, *range(5, 99)), {}, 14)],
)
def test_a_run_ends_at_the_first_such_step_if_so_wished_and_after_ten_in_a_row(fit, tmp_path, nan_at, settings, step):
    with pytest.raises(nt.TrainingError, match=f"The loss of step {step} is nan"):
        fit({"nan_at": nan_at}, **settings)
    assert [line["step"] for line in log_of(tmp_path) if "loss" in line][-1] == step


def test_there_is_a_time_for_each_step_and_the_log_has_the_mean_loss_of_each_epoch(fit, tmp_path):
    fit({}, num_epochs=1)
    log = log_of(tmp_path)
    steps, (epoch,) = [line for line in log if "loss" in line], [line for line in log if "validation" in line]
    times = [json.loads(line) for line in (tmp_path / "times.jsonl").read_text().splitlines()]
    assert [line["step"] for line in times if "epoch" not in line] == [line["step"] for line in steps]
    seconds = [line["seconds"] for line in times]
    assert seconds == sorted(seconds)
    mean = sum(line["loss"] * line["targets"] for line in steps) / sum(line["targets"] for line in steps)
    assert epoch["mean_loss"] == pytest.approx(mean, abs=1e-5)


def test_the_schedule_does_not_move_when_fp16_overflow_skipped_the_step(checkpoint, tsv, monkeypatch):
    splits = nt.read_text_classification(nt.TextData(train=str(tsv)))
    task = nt.TextClassification.for_splits(splits, nt.TextClassificationConfig())
    model = nt.load_sequence_classifier(checkpoint, task.labels)
    accelerator = make_accelerator(nt.TrainingConfig(mixed_precision="no"))
    split = task.encode(splits.train, model)
    optimizer = accelerator.prepare(torch.optim.SGD(model.network.parameters(), lr=1.0))
    state = TrainState(model.network, optimizer, lambda _: 1.0, Progress())
    plan = plan_training(
        nt.TrainingConfig(), split, adapter="none", num_labels=2, width=32, num_processes=accelerator.num_processes
    )
    step = plan.batches.steps(0)[0]
    batches = list(Loading(split).batches(step.micro_batches, 0))
    for skipped in (True, False):
        monkeypatch.setattr(type(accelerator), "optimizer_step_was_skipped", skipped)
        _, _, moved, suspects = take_step(accelerator, state, step, batches, task.loss_sum, 1.0, (0, 0))
        assert moved is not skipped
        assert suspects == ()
    state.progress.count(moved=False, is_finite=True, ends_epoch=False)
    assert (state.progress.step, state.progress.updates) == (1, 0)
