"""What was saved answers in a new process exactly as it did in memory, also through plain PEFT."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

import nlp_transfer as nt
from tests.adapters_at_random import make_adapter
from tests.conftest import FAMILIES
from tests.processes import python
from tests.promises import read_back

ADAPTERS = ["lora", "head", "none"]
TASKS = ["text_classification", "ner"]


def train_by_noise(model: nt.Model) -> None:
    """Move every trainable weight: a new LoRA adapter has no effect, and a lost one would not be missed."""
    with torch.no_grad():
        for parameter in model.network.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.05)


def save(checkpoint: str, corpus: Path, task_name: str, adapter: str, folder: Path, **lora: object) -> torch.Tensor:
    """A model with weights moved, saved to ``folder``; gives its logits."""
    if task_name == "ner":
        splits = nt.read_ner(nt.NerData(train=str(corpus)))
        task = nt.Ner.for_splits(splits, nt.NerConfig())
        model = nt.load_token_classifier(checkpoint, task.labels)
    else:
        splits = nt.read_text_classification(nt.TextData(train=str(corpus)))
        task = nt.TextClassification.for_splits(splits, nt.TextClassificationConfig())
        model = nt.load_sequence_classifier(checkpoint, task.labels)
    model = nt.add_adapter(model, adapter, nt.LoraConfig(rank=4, **lora))
    train_by_noise(model)
    nt.save_model(model, task, nt.evaluate(model, task, "test", splits.test), folder)
    return read_back.outputs(model, task)


@pytest.fixture(scope="module")
def saved(make_checkpoint, conll, tsv, tmp_path_factory):
    """Of every family, task and kind of adapter: the checkpoint, the folder, and the logits in memory."""
    root = tmp_path_factory.mktemp("models")
    made = {}
    for family in FAMILIES:
        checkpoint = str(make_checkpoint(family))
        for task in TASKS:
            for adapter in ADAPTERS:
                folder = root / f"{family}-{task}-{adapter}"
                made[family, task, adapter] = (
                    checkpoint,
                    folder,
                    save(checkpoint, conll if task == "ner" else tsv, task, adapter, folder),
                )
    return made


@pytest.fixture(scope="module")
def read(saved, tmp_path_factory):
    """The same logits, computed in one new process."""
    out = tmp_path_factory.mktemp("out") / "logits.safetensors"
    pairs = [str(part) for checkpoint, folder, _ in saved.values() for part in (checkpoint, folder)]
    done = python(Path(read_back.__file__), out, *pairs)
    assert done.returncode == 0, done.stderr[-2000:]
    return load_file(out)


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_gives_the_same_logits_in_a_new_process(saved, read, family, task, adapter):
    _, folder, in_memory = saved[family, task, adapter]
    assert float((read[f"{folder} ours"] - in_memory).abs().max()) == 0
    assert float((read[f"{folder} peft"] - in_memory).abs().max()) == 0


@pytest.mark.parametrize(
    "lora", [{"use_dora": True}, {"use_rslora": True}, {"init": "gaussian"}, {"init": "orthogonal"}]
)
def test_every_way_of_lora_comes_back_exactly(checkpoint, tsv, tmp_path, lora):
    in_memory = save(checkpoint, tsv, "text_classification", "lora", tmp_path / "model", **lora)
    assert float((read_back.outputs(*nt.load_model(tmp_path / "model")) - in_memory).abs().max()) == 0


@pytest.mark.parametrize("kind", [{}, {"use_rslora": True}, {"use_dora": True}], ids=str)
@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_adapters_that_moved_the_base_come_back_for_the_base_itself(checkpoint, tsv, tmp_path, init, kind):
    in_memory = save(checkpoint, tsv, "text_classification", "lora", tmp_path / "model", init=init, **kind)
    assert float((read_back.outputs(*nt.load_model(tmp_path / "model")) - in_memory).abs().max()) < 1e-3


def test_so_it_does_where_peft_shortens_the_names_of_many_layers(checkpoint, tsv, tmp_path):
    """From twenty names on it keeps endings that no other module has."""
    deep = shutil.copytree(checkpoint, tmp_path / "deep")
    config = hf.AutoConfig.from_pretrained(deep, num_hidden_layers=4)
    hf.AutoModel.from_config(config).save_pretrained(deep)
    in_memory = save(str(deep), tsv, "text_classification", "lora", tmp_path / "model")
    stated = json.loads((tmp_path / "model" / "adapter_config.json").read_text())
    assert "intermediate.dense" in stated["target_modules"]
    assert float((read_back.outputs(*nt.load_model(tmp_path / "model")) - in_memory).abs().max()) == 0
    bank = nt.AdapterBank.load([tmp_path / "model"])
    alone = nt.load(tmp_path / "model").predict("a lovely film")
    [found] = bank.predict([(str(tmp_path / "model"), "a lovely film")])
    assert found.probabilities == pytest.approx(alone.probabilities, abs=1e-6)


def test_labels_task_and_base_come_back_with_the_weights(checkpoint, conll, tmp_path):
    save(checkpoint, conll, "ner", "lora", tmp_path / "model")
    predictor = nt.load(tmp_path / "model")
    assert predictor.labels == ("LOC", "ORG", "PER")
    assert predictor.model.origin.name == checkpoint
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text())
    assert manifest["task"]["scheme"] == "IOB2"
    assert len(manifest["checkpoint"]["weights_sha256"]) == 64


def test_thresholds_come_back(checkpoint, tmp_path):
    folder = make_adapter(checkpoint, tmp_path / "model", 2, threshold=0.3)
    assert nt.load(folder).task.thresholds == (0.3,) * 4


def test_the_base_may_stand_elsewhere_if_its_weights_are_the_same(checkpoint, tsv, tmp_path):
    in_memory = save(checkpoint, tsv, "text_classification", "lora", tmp_path / "model")
    copy = tmp_path / "copy"
    nt.load_sequence_classifier(checkpoint, nt.LabelSet(("a", "b"))).network.base_model.save_pretrained(copy)
    for file in Path(checkpoint).glob("tokenizer*"):
        shutil.copy(file, copy)
    loaded = nt.load_model(tmp_path / "model", checkpoint=str(copy))
    assert float((read_back.outputs(*loaded) - in_memory).abs().max()) == 0


def test_a_base_of_the_same_shape_with_other_weights_is_refused(make_checkpoint, checkpoint, tsv, tmp_path):
    save(checkpoint, tsv, "text_classification", "lora", tmp_path / "model")
    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    weights = load_file(other / "model.safetensors")
    weights["embeddings.word_embeddings.weight"] += 1e-3
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(nt.ArtifactError, match="other encoder weights"):
        nt.load(tmp_path / "model", checkpoint=str(other))
    with pytest.raises(nt.NlpTransferError):
        nt.load(tmp_path / "model", checkpoint=str(make_checkpoint("electra")))


@pytest.mark.parametrize("file", ["manifest.json", "adapter_config.json", "adapter_model.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "empty", "halved", "one byte"])
def test_a_damaged_model_is_refused(checkpoint, tsv, tmp_path_factory, tmp_path, file, damage):
    folder = tmp_path / "model"
    save(checkpoint, tsv, "text_classification", "head", folder)
    content = (folder / file).read_bytes()
    (folder / file).unlink()
    if damage != "missing":
        half = len(content) // 2
        changed = {"empty": b"", "halved": content[:half], "one byte": content[:half] + b"\x00" + content[half + 1 :]}
        (folder / file).write_bytes(changed[damage])
    with pytest.raises(nt.ArtifactError, match=r"model"):
        nt.load(folder)


MANIFESTS = {
    "no object": lambda raw: [raw],
    "no labels": lambda raw: raw["task"].pop("labels"),
    "a label that is no name": lambda raw: raw["task"].update(labels=["blame", 1]),
    "a label twice": lambda raw: raw["task"].update(labels=["blame", "blame"]),
    "an unknown task": lambda raw: raw["task"].update(name="translation"),
    "hashes in a list": lambda raw: raw.update(sha256=[]),
    "a limit that is a word": lambda raw: raw.update(max_tokens="many"),
    "a limit of nothing": lambda raw: raw.update(max_tokens=0),
    "no base": lambda raw: raw.update(checkpoint={}),
    "a field too many": lambda raw: raw.update(more=1),
    "another format": lambda raw: raw.update(format=99),
}


@pytest.mark.parametrize("change", MANIFESTS.values(), ids=MANIFESTS)
def test_a_manifest_that_says_something_impossible_is_refused(checkpoint, tsv, tmp_path, change):
    save(checkpoint, tsv, "text_classification", "head", tmp_path / "model")
    path = tmp_path / "model" / "manifest.json"
    raw = json.loads(path.read_text())
    changed = change(raw)
    path.write_text(json.dumps(changed if isinstance(changed, list) and changed[0] is raw else raw))
    with pytest.raises(nt.ArtifactError):
        nt.load(tmp_path / "model")


@pytest.mark.parametrize("limit", [2, 100_000])
@pytest.mark.parametrize("adapter", ["head", "none"])
def test_a_limit_that_cannot_be_is_refused_when_it_is_loaded(checkpoint, tsv, tmp_path, adapter, limit):
    """And not at the first text, in a bank together with those of others."""
    save(checkpoint, tsv, "text_classification", adapter, tmp_path / "model")
    path = tmp_path / "model" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"max_tokens": limit}))
    with pytest.raises(nt.ConfigError, match="max_tokens must be from 8 to"):
        nt.load(tmp_path / "model")
    if adapter == "head":
        with pytest.raises(nt.ConfigError, match="max_tokens must be from 8 to"):
            nt.AdapterBank.load({"a": tmp_path / "model"})


def test_whole_weights_under_more_labels_than_they_have_are_refused(checkpoint, tsv, tmp_path):
    """transformers would draw a random head and say nothing."""
    save(checkpoint, tsv, "text_classification", "none", tmp_path / "model")
    path = tmp_path / "model" / "manifest.json"
    raw = json.loads(path.read_text())
    raw["task"]["labels"].append("neither")
    path.write_text(json.dumps(raw))
    with pytest.raises(nt.ArtifactError, match="names other labels"):
        nt.load(tmp_path / "model")


def test_a_folder_that_is_no_saved_model_is_never_replaced(checkpoint, tsv, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(nt.ConfigError, match="is no saved model"):
        save(checkpoint, tsv, "text_classification", "head", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def package_of(checkpoint: str, root: Path) -> str:
    """The checkpoint inside an importable package that fails when it is imported."""
    (root / "some_weights").mkdir()
    (root / "some_weights" / "__init__.py").write_text("raise SystemError('data is never imported')")
    shutil.copytree(checkpoint, root / "some_weights" / "model")
    return "package:some_weights/model"


def test_package_hub_and_folder_stand_for_one_another(checkpoint, tsv, tmp_path, monkeypatch):
    """Trained from a package, loaded where the same weights come from a folder or from the Hub."""
    monkeypatch.syspath_prepend(tmp_path)
    in_memory = save(package_of(checkpoint, tmp_path), tsv, "text_classification", "lora", tmp_path / "model")
    downloaded = shutil.copytree(checkpoint, tmp_path / "hub" / "0a1b2c")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(downloaded))
    for spelling, revision in [("package:some_weights/model", None), (checkpoint, None), ("some/weights", "0a1b2c")]:
        model, task = nt.load_model(tmp_path / "model", checkpoint=spelling)
        assert float((read_back.outputs(model, task) - in_memory).abs().max()) == 0
        assert model.origin.revision == revision


def test_the_default_checkpoint_is_asked_for_where_it_is(checkpoint, monkeypatch):
    from nlp_transfer import known_checkpoints, saved_models

    def origin(name: str, revision: str | None = None):
        return nt.load_sequence_classifier(checkpoint, nt.LabelSet(("a", "b"))).origin.__class__(
            name=name, revision=revision, weights_sha256="", encoder_sha256="", tokenizer_sha256=""
        )

    packaged, hub = known_checkpoints.PACKAGED_MINILM, known_checkpoints.MINILM_HUB_ID
    for installed, expected in [(True, packaged), (False, hub)]:
        monkeypatch.setattr(saved_models, "default_checkpoint", lambda found=expected: found)
        assert saved_models.base_name(origin(packaged)) == expected
        assert saved_models.base_name(origin(hub, "c0ffee")) == (packaged if installed else f"{hub}@c0ffee")
    assert saved_models.base_name(origin("org/name", "c0ffee")) == "org/name@c0ffee"


def test_a_model_that_answers_differently_after_saving_is_not_kept(checkpoint, tsv, tmp_path, monkeypatch):
    """Lose the head on the way to the disk, as PEFT does where it does not know its name."""
    from nlp_transfer import saved_models

    attach = saved_models.attach

    def lose_head(base, folder):
        network = attach(base, folder)
        torch.nn.init.normal_(network.get_submodule("base_model.model.classifier.modules_to_save.default").weight)
        return network

    monkeypatch.setattr(saved_models, "attach", lose_head)
    with pytest.raises(nt.ArtifactError, match="answers differently"):
        save(checkpoint, tsv, "text_classification", "lora", tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
