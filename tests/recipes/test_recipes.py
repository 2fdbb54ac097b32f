"""Each recipe, run for real on a toy corpus with a tiny checkpoint: it learns, and leaves a whole run folder."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

import nlp_transfer as nt
from tests.processes import PROJECT, launch

TRAINING = {"mixed_precision": "no", "batch_size": 8, "num_epochs": 25, "learning_rate": 4e-3}
RATE = {"lora": 4e-3, "none": 3e-3}


def recipe(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, PROJECT / "recipes" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def losses_of(run_dir: Path) -> list[float]:
    """Of every step."""
    lines = map(json.loads, (run_dir / "log.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def check_run_folder(run_dir: Path) -> None:
    """Everything is there, and the log shows that the loss fell."""
    names = {path.name for path in run_dir.iterdir()}
    assert names >= {
        *("config.json", "log.jsonl", "metrics.json", "predictions.jsonl", "report.md"),
        *("curves.png", "confusion.png", "checkpoints", "model"),
    }
    losses = losses_of(run_dir)
    assert losses[-1] < losses[0] / 2
    assert not list(run_dir.glob(".*"))
    report = (run_dir / "report.md").read_text()
    records = [json.loads(line) for line in (run_dir / "predictions.jsonl").read_text().splitlines()]
    wrong = sum(not record["correct"] for record in records)
    expected = (
        f"{wrong} of {len(records)} examples are not" if wrong else f"None: all {len(records)} examples are right."
    )
    assert f"## Errors\n\n{expected}" in report
    assert re.search("(fp32|bf16|fp16) precision, ", report)
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["adapter"].get("init", "default") == "default"


def test_paths_may_be_written_either_way(checkpoint, tsv, tmp_path, monkeypatch):
    """As in a notebook: ``train=Path(...)``, ``run_dir="~/runs/..."``."""
    monkeypatch.setenv("HOME", str(tmp_path))
    module = recipe("text_classification")
    config = module.Config(
        train=Path(tsv), checkpoint=Path(checkpoint), run_dir="~/run", training=nt.TrainingConfig(num_epochs=1)
    )
    module.run(config)
    assert (tmp_path / "run" / "report.md").is_file()
    text = "a film"
    answer = nt.load("~/run/model", checkpoint=Path(checkpoint)).predict(text)
    model, _ = nt.load_model("~/run/model")
    assert model.adapter == "lora"
    assert nt.load(nt.merge(["~/run/model"], "~/whole")).predict(text).label == answer.label
    assert {path.name for path in tmp_path.iterdir()} >= {"run", "whole"}


@pytest.mark.parametrize("adapter", ["lora", "none"])
def test_ner_learns_and_its_model_gives_the_same_entities(checkpoint, conll, tmp_path, adapter):
    module = recipe("ner")
    metrics = module.run(
        module.Config(
            train=str(conll),
            validation=str(conll),
            allow_leakage=True,
            test=str(conll),
            checkpoint=checkpoint,
            adapter=adapter,
            run_dir=tmp_path,
            training=nt.TrainingConfig(**TRAINING | {"learning_rate": RATE[adapter]}),
        )
    )
    assert metrics["f1"] > 0.8
    check_run_folder(tmp_path)
    tagger = nt.load(tmp_path / "model")
    for line in (tmp_path / "predictions.jsonl").read_text().splitlines():
        record = json.loads(line)
        found = [(entity.text, entity.label) for entity in tagger.predict([record["words"]])[0]]
        assert found == [(entity["text"], entity["label"]) for entity in record["entities"]]
    text = "Yesterday Carol Ann lives in New York."
    assert all(text[entity.start : entity.end] == entity.text for entity in tagger.predict(text))


@pytest.mark.parametrize("adapter", ["lora", "none"])
def test_text_classification_learns_and_its_model_gives_the_same_labels(checkpoint, tsv, tmp_path, adapter):
    module = recipe("text_classification")
    metrics = module.run(
        module.Config(
            train=str(tsv),
            checkpoint=checkpoint,
            adapter=adapter,
            run_dir=tmp_path,
            training=nt.TrainingConfig(**TRAINING | {"learning_rate": RATE[adapter]}),
        )
    )
    assert metrics["accuracy"] >= 0.8
    check_run_folder(tmp_path)
    assert set(json.loads((tmp_path / "splits.json").read_text())) == {"validation", "test"}
    classifier = nt.load(tmp_path / "model")
    for line in (tmp_path / "predictions.jsonl").read_text().splitlines():
        record = json.loads(line)
        answer = classifier.predict(record["text"])
        assert answer.label == record["predicted"]
        assert answer.probability == pytest.approx(record["probability"], abs=1e-4)
        assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-5)


def test_text_pairs_are_learned(checkpoint, tmp_path):
    """Whether the second text names the same thing: not to be told from either text alone."""
    things = ["film", "book", "song", "meal"]
    rows = [{"sentence1": f"a {a}", "sentence2": f"the {b}", "label": str(a == b)} for a in things for b in things]
    rows += [row for row in rows if row["label"] == "True"] * 2
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * 3))
    module = recipe("text_classification")
    file = str(tmp_path / "train.jsonl")
    metrics = module.run(
        module.Config(
            train=file,
            validation=file,
            allow_leakage=True,
            checkpoint=checkpoint,
            adapter="none",
            run_dir=tmp_path / "run",
            training=nt.TrainingConfig(**TRAINING | {"learning_rate": 1e-3, "num_epochs": 40}),
        )
    )
    assert metrics["accuracy"] > 0.9
    classifier = nt.load(tmp_path / "run" / "model")
    answers = classifier.predict([("a film", "the film"), ("a film", "the book")])
    assert [answer.label for answer in answers] == ["True", "False"]


def test_several_labels_a_text_are_learned(checkpoint, tmp_path):
    words = {"great": ["praise"], "awful": ["blame"], "great awful": ["blame", "praise"], "plain": []}
    rows = [
        {"text": f"{word} {thing}", "labels": labels} for word, labels in words.items() for thing in ["film", "book"]
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * 6))
    module = recipe("text_classification")
    file = str(tmp_path / "train.jsonl")
    metrics = module.run(
        module.Config(
            train=file,
            validation=file,
            allow_leakage=True,
            checkpoint=checkpoint,
            run_dir=tmp_path / "run",
            task=nt.TextClassificationConfig(multi_label=True, class_weights="balanced"),
            training=nt.TrainingConfig(**TRAINING),
        )
    )
    assert metrics["micro_f1"] == 1.0
    answers = nt.load(tmp_path / "run" / "model").predict(["great awful film", "plain book"])
    assert [set(answer.labels) for answer in answers] == [{"praise", "blame"}, set()]
    assert answers[1].label is None


@pytest.mark.parametrize(
    "settings",
    [
        {"gradient_checkpointing": True},
        {"schedule": "cosine", "layer_decay": 0.8},
        {"batch_tokens": 64, "batch_size": None, "gradient_accumulation_steps": 2},
        {"early_stopping_patience": 6, "selection_metric": "macro_f1"},
        {"mixed_precision": "bf16"},
    ],
    ids=str,
)
def test_every_way_to_train_learns(checkpoint, tsv, tmp_path, settings):
    module = recipe("text_classification")
    training = nt.TrainingConfig(**TRAINING | settings)
    metrics = module.run(
        module.Config(train=str(tsv), checkpoint=checkpoint, run_dir=tmp_path / "run", training=training)
    )
    assert metrics["accuracy"] >= 0.8


@pytest.mark.multiprocess
@pytest.mark.slow
@pytest.mark.parametrize("name", ["ner", "text_classification"])
def test_two_processes_train_to_the_scores_of_one(checkpoint, conll, tsv, tmp_path, name):
    """The same micro-batches, spread over two processes: dropout is on, and draws the same in both runs."""
    flags = ["--checkpoint", checkpoint, "--training.mixed-precision", "no", "--training.num-epochs", "6"]
    flags += [
        "--training.learning-rate",
        "3e-3",
        "--train",
        conll if name == "ner" else tsv,
        "--training.batch-size",
        "4",
    ]
    file = PROJECT / "recipes" / f"{name}.py"
    launch(2, file, *flags, "--run-dir", tmp_path / "two", "--training.gradient-accumulation-steps", "2")
    launch(1, file, *flags, "--run-dir", tmp_path / "one", "--training.gradient-accumulation-steps", "4")
    one, two = (json.loads((tmp_path / run / "metrics.json").read_text())["test"] for run in ("one", "two"))
    assert two == {metric: pytest.approx(value, abs=1e-3) for metric, value in one.items()}
    losses = [losses_of(tmp_path / run) for run in ("one", "two")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
