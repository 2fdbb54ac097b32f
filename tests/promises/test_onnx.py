"""An exported model answers as the one it was made from, or is not written; what is read back is checked."""

from __future__ import annotations

import json

import onnx
import pytest

import nlp_transfer as nt
from nlp_transfer.inference.onnx import export
from tests.adapters_at_random import make_adapter
from tests.corpus import REVIEWS, SENTENCES
from tests.promises.test_hostile_files import edit_json, sign

TEXTS = [" ".join(words) for words, _ in SENTENCES[:8]] + [text for text, _ in REVIEWS[:8]] + ["lovely " * 90, ""]
FAMILIES = ["bert", pytest.param("roberta", marks=pytest.mark.slow), pytest.param("distilbert", marks=pytest.mark.slow)]
FAMILIES += [pytest.param(name, marks=pytest.mark.slow) for name in ("electra", "albert", "deberta-v2", "modernbert")]
FAMILIES += [pytest.param(name, marks=pytest.mark.slow) for name in ("mpnet", "camembert", "xlm-roberta")]


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    """A classifier, and what was exported of it."""
    root = tmp_path_factory.mktemp("onnx")
    folder = make_adapter(checkpoint, root / "adapter", 0)
    return folder, root / "exported", export(folder, root / "exported", TEXTS)


@pytest.mark.parametrize("number", [0, 1, 2], ids=["one label", "entities", "any labels"])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_exported_model_gives_the_same_labels_and_entities(make_checkpoint, family, number, tmp_path):
    folder = make_adapter(str(make_checkpoint(family)), tmp_path / "adapter", number)
    parity = export(folder, tmp_path / "exported", TEXTS)
    assert (parity.texts, parity.agreement) == (len(TEXTS), 1.0)
    assert parity.largest_difference < 1e-4
    ours, theirs = nt.load(folder), nt.load(tmp_path / "exported")
    assert theirs.labels == ours.labels
    for text in TEXTS:  # one by one, in any number of rows and tokens
        found, wanted = theirs.predict(text), ours.predict(text)
        if number % 2:
            assert [(e.text, e.label, e.start) for e in found] == [(e.text, e.label, e.start) for e in wanted]
        else:
            assert found.labels == wanted.labels


def test_below_the_gate_nothing_is_written(checkpoint, tmp_path, monkeypatch):
    from nlp_transfer.inference import onnx as module

    folder = make_adapter(checkpoint, tmp_path / "adapter", 0)
    other = make_adapter(checkpoint, tmp_path / "other", 0, seed=1)
    monkeypatch.setattr(module, "folded", lambda _: module.load_model(nt.merge([other], tmp_path / "merged"))[0])
    with pytest.raises(nt.ArtifactError, match=r"Nothing was written: [\d.]+% of 18 texts get the same answer"):
        export(folder, tmp_path / "exported", TEXTS)
    assert not (tmp_path / "exported").exists()
    with pytest.raises(nt.ConfigError, match="got none"):
        export(folder, tmp_path / "exported", [])


@pytest.mark.slow
def test_a_family_that_cannot_be_exported_is_one_line(make_checkpoint, tmp_path):
    folder = make_adapter(str(make_checkpoint("xlnet")), tmp_path / "adapter", 0)
    with pytest.raises(nt.ArtifactError, match="A xlnet model cannot be exported") as refused:
        export(folder, tmp_path / "exported", TEXTS)
    assert len(str(refused.value).splitlines()) == 1


def test_the_command_exports_in_8_bits_and_says_how_it_answers(exported, call, tmp_path):
    folder, *_ = exported
    code, out, err = call("export", folder, tmp_path / "small", "--int8", "--min-agreement", "0")
    assert code == 0, err
    assert "of 1 texts get the same answer, and probabilities differ by up to" in out
    sizes = [(path / "model.onnx").stat().st_size for path in (tmp_path / "small", exported[1])]
    assert sizes[0] < sizes[1]
    small, whole = (json.loads((path / "manifest.json").read_text()) for path in (tmp_path / "small", exported[1]))
    assert (small["scores"], small["samples"]) == ({}, [])  # those of the model are not those of 8 bits
    assert whole["scores"]
    assert whole["samples"]
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS[:4]))
    code, out, _ = call("predict", tmp_path / "small", "--file", tmp_path / "texts.txt")
    assert (code, len(out.splitlines())) == (0, 4)


def rewritten(path, change):
    graph = onnx.load(path)
    change(graph)
    path.write_bytes(graph.SerializeToString())


def lies_elsewhere(graph):
    weight = graph.graph.initializer[0]
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../../secret")


def lies_elsewhere_in_a_branch(graph):
    weight = onnx.TensorProto(name="hidden", data_type=onnx.TensorProto.FLOAT, dims=[1])
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../../secret")
    graph.graph.node.append(onnx.helper.make_node("Constant", [], ["unused"], value=weight))


HARM = {
    "no graph": lambda path: path.write_bytes(b"no graph"),
    "empty": lambda path: path.write_bytes(b""),
    "weights elsewhere": lambda path: rewritten(path, lies_elsewhere),
    "weights elsewhere, in a node": lambda path: rewritten(path, lies_elsewhere_in_a_branch),
    "operators of others": lambda path: rewritten(path, lambda g: g.opset_import.add(domain="evil", version=1)),
    "names of labels without end": lambda path: edit_json("config.json", num_labels=10**9)(path.parent),
    "a link out of the folder": lambda path: (path.rename(path.parent.parent / "m"), path.symlink_to("../m")),
}


def test_a_graph_that_the_manifest_does_not_list_is_not_read(checkpoint, exported, tmp_path):
    """As an exporter of others leaves it beside the weights."""
    _, graph, _ = exported
    folder = make_adapter(checkpoint, tmp_path / "whole", 0, "none")
    expected = nt.load(folder).predict(TEXTS[0])
    (folder / "model.onnx").write_bytes((graph / "model.onnx").read_bytes())
    assert nt.load(folder).predict(TEXTS[0]) == expected


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM)
def test_a_graph_that_is_none_or_means_harm_is_refused(exported, tmp_path, harm):
    import shutil

    folder = shutil.copytree(exported[1], tmp_path / "exported")
    harm(folder / "model.onnx")
    sign(folder)
    with pytest.raises(nt.ArtifactError):
        nt.load(folder)


def test_what_an_exported_model_cannot_do_is_said(exported, tmp_path):
    _, folder, _ = exported
    with pytest.raises(nt.ConfigError, match="no hidden states"):
        nt.load(folder).embed(["a text"])
    for work in (lambda: nt.load_model(folder), lambda: nt.merge([folder], tmp_path / "m")):
        with pytest.raises(nt.ArtifactError):
            work()
    assert json.loads((folder / "config.json").read_text())["id2label"] == {"0": "A0", "1": "B0"}
