"""Adapters folded into their base: the same answers, from plain transformers too; several of one task by their mean."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file

import nlp_transfer as nt
from nlp_transfer.data.examples import Source
from nlp_transfer.output_rows import output_names, united_rows
from tests.adapters_at_random import make_adapter
from tests.conftest import FAMILIES
from tests.corpus import REVIEWS

TEXTS = [text for text, _ in REVIEWS[:6]]


def probabilities(folder):
    found = nt.load(folder).predict_proba(TEXTS)
    return torch.cat([torch.as_tensor(rows).flatten() for rows in found])


def weights(folder):
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("kind", ["lora", "head"])
@pytest.mark.parametrize("number", [0, 1, 2], ids=["one label", "entities", "any labels"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_merged_model_gives_the_answers_of_its_adapter(make_checkpoint, family, number, kind, tmp_path):
    folder = make_adapter(str(make_checkpoint(family)), tmp_path / "adapter", number, kind)
    merged = nt.merge([folder], tmp_path / "merged")
    assert (probabilities(folder) - probabilities(merged)).abs().max() < 1e-5
    assert nt.load(merged).labels == nt.load(folder).labels


def test_plain_transformers_reads_it_with_the_names_of_the_labels(checkpoint, tmp_path):
    merged = nt.merge([make_adapter(checkpoint, tmp_path / "adapter", 0)], tmp_path / "merged")
    plain = hf.pipeline("text-classification", model=str(merged), tokenizer=str(merged))
    ours = nt.load(merged).predict(TEXTS)
    assert [found["label"] for found in plain(TEXTS)] == [found.label for found in ours]


def test_it_takes_any_number_of_labels_a_text_for_that(checkpoint, tmp_path):
    """Else its pipeline would take a softmax over them."""
    merged = nt.merge([make_adapter(checkpoint, tmp_path / "adapter", 2)], tmp_path / "merged")
    plain = hf.pipeline("text-classification", model=str(merged), tokenizer=str(merged), top_k=None)
    (answer,) = plain(["a text"])
    found = {one["label"]: one["score"] for one in answer}
    assert found == pytest.approx(nt.load(merged).predict("a text").probabilities, abs=1e-5)


@pytest.mark.parametrize("lora", [{"use_dora": True}, {"use_rslora": True}, {"init": "pissa"}], ids=str)
def test_every_way_of_lora_can_be_merged(checkpoint, tmp_path, lora):
    folder = make_adapter(checkpoint, tmp_path / "adapter", 0, **lora)
    assert (probabilities(folder) - probabilities(nt.merge([folder], tmp_path / "merged"))).abs().max() < 1e-3


@pytest.fixture
def parents(checkpoint, tmp_path):
    """Two adapters of one task; their weights differ."""
    first = make_adapter(checkpoint, tmp_path / "first", 0)
    return first, make_adapter(checkpoint, tmp_path / "second", 0, seed=1)


@pytest.mark.parametrize("which", [0, 1])
def test_a_mean_with_weights_of_1_and_0_is_one_of_them(parents, tmp_path, which):
    shares = [float(i == which) for i in range(2)]
    mixed = nt.merge(parents, tmp_path / "mixed", weights=shares)
    alone = nt.merge([parents[which]], tmp_path / "alone")
    assert all(torch.equal(tensor, weights(alone)[name]) for name, tensor in weights(mixed).items())


def test_a_mean_lies_in_the_middle(parents, tmp_path):
    mixed = weights(nt.merge(parents, tmp_path / "mixed"))
    alone = [weights(nt.merge([parent], tmp_path / f"alone{i}")) for i, parent in enumerate(parents)]
    assert any(not torch.equal(alone[0][name], alone[1][name]) for name in mixed)
    for name, tensor in mixed.items():
        torch.testing.assert_close(tensor, (alone[0][name] + alone[1][name]) / 2)


@pytest.mark.parametrize("method", ["ties", "dare"])
def test_other_ways_of_the_same_adapter_twice_give_that_adapter(parents, tmp_path, method):
    folder = parents[0]
    mixed = nt.merge([folder, folder], tmp_path / "mixed", method=method, density=1.0)
    assert (probabilities(folder) - probabilities(mixed)).abs().max() < 1e-5


def test_ties_keeps_the_largest_changes_and_those_that_agree():
    from nlp_transfer.mixing import largest, ties

    assert largest(torch.tensor([1.0, -4.0, 2.0, 0.5]), 0.5).tolist() == [0, -4, 2, 0]
    changes = [torch.tensor([1.0, 3.0, 0.0, 2.0]), torch.tensor([2.0, -1.0, 0.0, -2.0])]
    assert ties(changes, [0.5, 0.5]).tolist() == [1.5, 3.0, 0.0, 0.0]


def test_dare_drops_as_many_as_it_says_and_keeps_the_expected_value():
    from nlp_transfer.mixing import combiner

    combine = combiner("dare", [1.0], 0.25, seed=0)
    changed = combine(torch.zeros(100, 100), [{"w": torch.ones(100, 100)}], "w")
    assert set(changed.unique().tolist()) == {0.0, 4.0}
    assert abs(float(changed.mean()) - 1) < 0.05


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"weights": [1.0]}, "as many as the 2 folders"),
        ({"weights": [1.0, 1.0]}, "add up to 1"),
        ({"weights": [2.0, -1.0]}, "not be negative"),
        ({"weights": [float("nan"), 1.0]}, "not be negative"),
        ({"method": "magic"}, "method must be one of"),
        ({"density": 0.0}, "density must be above 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(parents, tmp_path, options, reason):
    with pytest.raises(nt.ConfigError, match=reason):
        nt.merge(parents, tmp_path / "mixed", **options)
    assert not (tmp_path / "mixed").exists()


def test_one_folder_leaves_nothing_to_choose(parents, tmp_path):
    with pytest.raises(nt.ConfigError, match="one folder was named"):
        nt.merge(parents[:1], tmp_path / "mixed", method="ties")


def test_strangers_are_not_merged(checkpoint, make_checkpoint, parents, tmp_path):
    odd = {
        "other labels": make_adapter(checkpoint, tmp_path / "labels", 4),
        "another base": make_adapter(str(make_checkpoint("electra")), tmp_path / "base", 0),
        "whole weights": make_adapter(checkpoint, tmp_path / "whole", 0, "none"),
    }
    for reason, folder in odd.items():
        with pytest.raises(nt.ArtifactError, match=reason):
            nt.merge([parents[0], folder], tmp_path / "mixed")


def test_the_command_merges_and_says_where(checkpoint, call, tmp_path):
    folder = make_adapter(checkpoint, tmp_path / "adapter", 0)
    code, out, err = call("merge", tmp_path / "merged", folder)
    assert (code, out.strip()) == (0, str(tmp_path / "merged")), err
    code, _, err = call("merge", tmp_path / "merged", folder)
    assert (code, "holds a model already" in err) == (2, True)
    code, _, _ = call("merge", tmp_path / "merged", folder, "--overwrite")
    assert code == 0
    code, _, err = call("merge", tmp_path / "other", tmp_path / "nowhere")
    assert code == 2
    assert len(err.splitlines()) == 1


def among(folder, names):
    """Probabilities of these labels among themselves; with any number of labels, as they are."""
    predictor = nt.load(folder)
    columns = [predictor.task.labels.id(name) for name in names]
    found = torch.cat(
        [torch.as_tensor(rows).reshape(-1, len(predictor.task.labels)) for rows in predictor.predict_proba(TEXTS)]
    )
    found = found[:, columns]
    return found if getattr(predictor.task, "multi_label", False) else found / found.sum(dim=1, keepdim=True)


def output_alone(checkpoint, folder, number, threshold=0.5):
    """An adapter of kind "head" of which only the last layer is its own, whatever else the family's heads hold."""
    made = make_adapter(checkpoint, folder.with_name("model"), number, "head", threshold=threshold)
    model, task = nt.load_model(made)
    outputs = output_names(model.network.get_base_model().config, task.head)
    with torch.no_grad():
        for name, parameter in model.network.named_parameters():
            is_output = name.removeprefix("base_model.model.").replace("modules_to_save.default.", "") in outputs
            seed = number if is_output else 99
            if ".modules_to_save." in name:
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)) / 5)
    shutil.rmtree(made)
    source = Source("text", 1)
    example = nt.TextExample("a text", (task.labels.names[0],), source)
    if number % 2:
        example = nt.TaggedExample(("a", "text"), ("O", "O"), source)
    return nt.save_model(model, task, nt.evaluate(model, task, "test", [example]), folder)


@pytest.mark.parametrize("number", [0, 1, 2], ids=["one label", "entities", "any labels"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_union_head_gives_each_parents_answers_on_its_labels(make_checkpoint, family, number, tmp_path):
    checkpoint = str(make_checkpoint(family))
    first = output_alone(checkpoint, tmp_path / "first", number, 0.3)
    second = output_alone(checkpoint, tmp_path / "second", number + 4, 0.6)
    union = nt.merge([first, second], tmp_path / "union", union_head=True)
    parents = [nt.load(parent).task.labels.names for parent in (first, second)]
    for parent, names in zip((first, second), parents, strict=True):
        torch.testing.assert_close(among(union, names), among(parent, names), atol=1e-5, rtol=0)
    predictor = nt.load(union)
    assert set(predictor.task.labels.names) == {*parents[0], *parents[1]}
    if number == 2:
        assert predictor.task.thresholds == pytest.approx([0.3] * 4 + [0.6] * 4)


def several_samples(folder, texts):
    """Its manifest holds one; what is predicted of them is not looked at."""
    path = folder / "manifest.json"
    raw = json.loads(path.read_text())
    (sample,) = raw["samples"]
    raw["samples"] = [{**sample, "text": text, "words": text.split()} for text in texts]
    path.write_text(json.dumps(raw))
    return folder


def agreeing(parent, union):
    """Of its samples: those that nt.load answers with the same labels, looking at the parent's alone."""
    theirs, ours = nt.load(parent), nt.load(union)
    texts = [sample["text"] for sample in json.loads((parent / "manifest.json").read_text())["samples"]]
    names = theirs.task.labels.names
    found = [max(names, key=lambda name: one.probabilities[name]) for one in ours.predict(texts)]
    return sum(a == b.label for a, b in zip(found, theirs.predict(texts), strict=True))


@pytest.mark.parametrize("long_texts", ["head", "windows"])
def test_encoders_that_differ_are_compared_and_refused_where_answers_change(checkpoint, tmp_path, capsys, long_texts):
    texts = [text for text, _ in REVIEWS[:12]] + ["lovely " * 90 + "awful " * 90]
    folders = [
        several_samples(make_adapter(checkpoint, tmp_path / str(number), number, seed=number + 3), texts)
        for number in (0, 4)
    ]
    for folder in folders:
        raw = json.loads((folder / "manifest.json").read_text())
        raw["task"]["long_texts"] = long_texts
        (folder / "manifest.json").write_text(json.dumps(raw))
    with pytest.raises(nt.ArtifactError, match=r"fewer than --min-agreement 1 .*AdapterBank"):
        nt.merge(folders, tmp_path / "union", union_head=True)
    assert not (tmp_path / "union").exists()
    capsys.readouterr()
    union = nt.merge(folders, tmp_path / "union", union_head=True, min_agreement=0)
    said = re.findall(r"(\d+) of its (\d+) samples", capsys.readouterr().err)
    assert said == [(str(agreeing(folder, union)), str(len(texts))) for folder in folders]
    assert nt.load(union).labels == ("A0", "B0", "A4", "B4")


def test_without_samples_nothing_is_taken_for_compared(checkpoint, tmp_path):
    folders = [several_samples(make_adapter(checkpoint, tmp_path / str(i), i, "head"), []) for i in (0, 4)]
    with pytest.raises(nt.ArtifactError, match="holds no samples to compare"):
        nt.merge(folders, tmp_path / "union", union_head=True)
    for least in (-1, 2, float("nan")):
        with pytest.raises(nt.ConfigError, match="min_agreement must be from 0 to 1"):
            nt.merge(folders, tmp_path / "union", union_head=True, min_agreement=least)
    assert nt.merge(folders, tmp_path / "union", union_head=True, min_agreement=0).exists()


def test_thresholds_of_a_label_of_both_are_those_of_the_union_when_answers_are_compared(checkpoint, tmp_path):
    """The encoder is the same, so only a threshold between both can change an answer."""
    folders = [
        output_alone(checkpoint, tmp_path / str(number), 2, threshold) for number, threshold in ((0, 0.01), (1, 0.99))
    ]
    with pytest.raises(nt.ArtifactError, match="fewer than --min-agreement"):
        nt.merge(folders, tmp_path / "union", union_head=True)


def test_a_label_of_both_parents_keeps_its_place_and_is_averaged():
    rows = [torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0], [9.0]])]
    label_sets = [nt.LabelSet(("a", "b")), nt.LabelSet(("b", "c"))]
    union = nt.LabelSet(("a", "b", "c"))
    assert united_rows(rows, label_sets, union, [0.5, 0.5], level=False).flatten().tolist() == [1, 4, 9]
    assert united_rows(rows, label_sets, union, [0.5, 0.5], level=True).flatten().tolist() == [-2, 0, 4]
    assert united_rows(rows, label_sets, union, [0.25, 0.75], level=False).flatten().tolist() == [1, 4.5, 9]


@pytest.mark.parametrize("number", [1, 2], ids=["entities", "any labels"])
def test_a_union_of_different_tasks_is_refused(checkpoint, tmp_path, number):
    folders = [make_adapter(checkpoint, tmp_path / str(i), i, "head") for i in (0, number)]
    with pytest.raises(nt.ArtifactError, match="another task or another limit"):
        nt.merge(folders, tmp_path / "union", union_head=True)


def test_the_command_unites_heads(checkpoint, call, tmp_path):
    folders = [make_adapter(checkpoint, tmp_path / str(i), i, "head") for i in (1, 5)]
    code, _, err = call("merge", tmp_path / "union", *folders)
    assert (code, "--union-head" in err) == (2, True)
    code, _, err = call("merge", tmp_path / "union", *folders, "--union-head")
    assert code == 0, err
    code, _, err = call("predict", tmp_path / "union", "a great film")
    assert code == 0, err
