"""What nothing is trained in or below is computed once, and the result is that of computing it in every step."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import transformers as hf

import nlp_transfer as nt
from nlp_transfer.adapters.lora import plain_network
from nlp_transfer.checkpoints import encoder_of
from nlp_transfer.training import prepare as preparing
from nlp_transfer.training.trunk import find_trunk
from tests.conftest import FAMILIES

KINDS = {"head": ("head", nt.LoraConfig()), "top layer": ("lora", nt.LoraConfig(rank=4, top_layers=1))}
UNCUT = {"albert", "xlnet"}
"""Families whose layers share weights, or whose embeddings are no module of their own."""
LAYERS = 2


def train(checkpoint, path, kind, run_dir, **training):
    """The trained weights, by name."""
    adapter, lora = KINDS[kind]
    if path.suffix == ".conll":
        splits = nt.read_ner(nt.NerData(train=str(path)))
        task = nt.Ner.for_splits(splits, nt.NerConfig())
        model = nt.load_token_classifier(str(checkpoint), task.labels)
    else:
        splits = nt.read_text_classification(nt.TextData(train=str(path)))
        task = nt.TextClassification.for_splits(splits, nt.TextClassificationConfig())
        model = nt.load_sequence_classifier(str(checkpoint), task.labels)
    model = nt.add_adapter(model, adapter, lora)
    settings = {"num_epochs": 3, "batch_size": 16, "learning_rate": 1e-2, "mixed_precision": "no", **training}
    config = nt.TrainingConfig(**settings)
    model = nt.fit(model, task, train=splits.train, validation=splits.validation, config=config, run_dir=run_dir)
    return {name: p.detach() for name, p in model.network.named_parameters() if p.requires_grad}


def num_lines(path):
    return len(path.read_text().splitlines())


class Passes(list):
    """Number of rows of each pass through the attention of the first layer."""

    kept = False


@pytest.fixture
def passes(monkeypatch):
    found, keep = Passes(), preparing.keep_trunk

    def count(run, held_out):
        run, validation = keep(run, held_out)
        found.kept = run.state.frozen is not None and run.state.frozen.states is not None
        if run.model.network.config.model_type == "bert":
            first = run.state.frozen.trunk.layers[0].attention
            first.register_forward_hook(lambda _, args, __: found.append(len(args[0])))
        return run, validation

    monkeypatch.setattr("nlp_transfer.training.fit.keep_trunk", count)
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - UNCUT))
def test_it_ends_in_the_same_weights(family, kind, make_checkpoint, conll, tmp_path, monkeypatch, passes):
    checkpoint = make_checkpoint(family)
    kept = train(checkpoint, conll, kind, tmp_path / "kept")
    assert passes.kept
    monkeypatch.setattr("nlp_transfer.training.fit.keep_trunk", lambda run, _: (run, None))
    plain = train(checkpoint, conll, kind, tmp_path / "plain")
    assert kept.keys() == plain.keys()
    for name, weight in plain.items():
        assert torch.allclose(kept[name], weight, atol=2e-4), name


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_layer_sees_each_row_once(kind, checkpoint, tsv, tmp_path, passes):
    train(checkpoint, tsv, kind, tmp_path)
    splits = nt.read_text_classification(nt.TextData(train=str(tsv)))
    assert sum(passes) == len(splits.train) + len(splits.validation)


@pytest.mark.parametrize("family", sorted(UNCUT))
def test_encoders_that_cannot_be_cut_are_trained_as_ever(family, make_checkpoint, tsv, tmp_path):
    assert train(make_checkpoint(family), tsv, "head", tmp_path)


def squeezebert(folder, checkpoint):
    """Its layers are called in another way than others'."""
    config = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    shutil.copytree(checkpoint, folder)
    hf.SqueezeBertModel(hf.SqueezeBertConfig(embedding_size=32, vocab_size=200, **config)).save_pretrained(folder)
    return folder


def test_an_encoder_of_another_build_is_trained_as_ever(checkpoint, tsv, tmp_path, passes):
    assert train(squeezebert(tmp_path / "squeeze", checkpoint), tsv, "head", tmp_path / "run")
    assert not passes.kept


def test_a_cache_that_cannot_be_written_leaves_the_run_as_it_is(checkpoint, tsv, tmp_path, monkeypatch, passes):
    monkeypatch.setattr("nlp_transfer.training.hidden_states.MEMORY_SHARE", 0)
    monkeypatch.setattr("nlp_transfer.training.hidden_states.cache_folder", lambda: Path("/proc/nowhere"))
    assert train(checkpoint, tsv, "head", tmp_path)
    assert not passes.kept


def test_what_is_trained_from_the_first_layer_on_has_no_trunk(checkpoint):
    labels = nt.LabelSet(("a", "b"))
    for adapter, lora, depth in (
        ("lora", nt.LoraConfig(rank=2), None),
        ("none", nt.LoraConfig(), None),
        ("lora", nt.LoraConfig(rank=2, top_layers=1), LAYERS - 1),
        ("head", nt.LoraConfig(), LAYERS),
    ):
        model = nt.add_adapter(nt.load_sequence_classifier(checkpoint, labels), adapter, lora)
        trunk = find_trunk(encoder_of(plain_network(model)))
        assert (trunk and trunk.depth) == depth


def test_random_masks_let_the_trunk_be_computed_anew(checkpoint, tsv, tmp_path, passes):
    train(checkpoint, tsv, "head", tmp_path, token_masking=0.1)
    assert sum(passes) > 2 * num_lines(tsv)


def test_it_goes_to_the_disk_and_to_nothing_where_room_is_short(checkpoint, tsv, tmp_path, monkeypatch, passes):
    in_memory = train(checkpoint, tsv, "head", tmp_path / "memory")
    monkeypatch.setattr("nlp_transfer.training.hidden_states.MEMORY_SHARE", 0)
    on_disk = train(checkpoint, tsv, "head", tmp_path / "disk")
    assert all(torch.equal(on_disk[name], in_memory[name]) for name in in_memory)
    passes.clear()
    monkeypatch.setattr("nlp_transfer.training.hidden_states.DISK_SHARE", 0)
    nowhere = train(checkpoint, tsv, "head", tmp_path / "nowhere")
    assert sum(passes) > 2 * num_lines(tsv)
    assert all(torch.allclose(nowhere[name], in_memory[name], atol=2e-4) for name in in_memory)


@pytest.mark.parametrize(("number", "reason"), [(0, "at least 1"), (3, "at most the 2 separate layers")])
def test_a_number_of_layers_that_there_is_not_is_refused(checkpoint, number, reason):
    model = nt.load_sequence_classifier(checkpoint, nt.LabelSet(("a", "b")))
    with pytest.raises(nt.ConfigError, match=reason):
        nt.add_adapter(model, "lora", nt.LoraConfig(rank=2, top_layers=number))


def test_layers_that_share_weights_have_no_top(make_checkpoint):
    model = nt.load_sequence_classifier(str(make_checkpoint("albert")), nt.LabelSet(("a", "b")))
    with pytest.raises(nt.ConfigError, match="separate"):
        nt.add_adapter(model, "lora", nt.LoraConfig(rank=2, top_layers=1))


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_whether_layers_can_be_left_out_is_tried_in_fp32(checkpoint, tsv, precision):
    splits = nt.read_text_classification(nt.TextData(train=str(tsv)))
    task = nt.TextClassification.for_splits(splits, nt.TextClassificationConfig())
    model = nt.add_adapter(nt.load_sequence_classifier(str(checkpoint), task.labels), *KINDS["top layer"])
    run = preparing.prepare(model, task, splits.train, nt.TrainingConfig(num_epochs=2, mixed_precision=precision))
    seen: set[bool] = set()
    top = encoder_of(plain_network(model)).encoder.layer[-1]
    handle = top.register_forward_pre_hook(lambda *_: seen.add(torch.is_autocast_enabled("cpu")))
    assert preparing.why_not_kept(run) is None
    assert seen == {False}
    handle.remove()
    handle = top.register_forward_pre_hook(lambda *_: seen.add(torch.is_autocast_enabled("cpu")))
    seen.clear()
    run.state.network(**run.split.batch((0,)).inputs)
    assert seen == {precision == "bf16"}


EXPLAINED = {
    "head": ("Frozen layers: the lowest 2 layers, once for all epochs.", {"num_epochs": 3}),
    "top layer": ("Frozen layers: the lowest layer, in each epoch: it is one epoch alone.", {"num_epochs": 1}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_chosen_is_explained_where_that_is_asked_for(kind, checkpoint, tsv, tmp_path, capsys):
    line, training = EXPLAINED[kind]
    for explain in (False, True):
        train(checkpoint, tsv, kind, tmp_path / str(explain), explain=explain, **training)
        said = capsys.readouterr().err
        assert (line in said) == explain
        assert ("Precision: fp32, as asked for." in said) == explain
        assert ("Attention: eager, for on a CPU" in said) == explain
        assert ("which is computed in attention alone; of the last layer just each text's first" in said) == explain
        assert ("LoRA: one matrix product" in said) == (explain and kind == "top layer")
