"""Models that others made: the answers they give there, and a line for all that they do not say."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

import nlp_transfer as nt
from nlp_transfer.errors import NlpTransferError
from tests.conftest import FAMILIES
from tests.corpus import REVIEWS
from tests.foreign_models import AUTO, CLASSES, TAGS, plain_adapter, whole_model

TEXTS = [text for text, _ in REVIEWS[:4]]
RANDOM_HEADS = {(family, "sequence") for family in ("deberta-v2", "modernbert", "xlnet")} | {("modernbert", "token")}
"""Families of which PEFT, unless told more, saves a part of the head only."""


@torch.no_grad()
def of_words(network, tokenizer, text):
    """Probabilities of tags at the first token of each word, in the order of TAGS."""
    blank = " " if tokenizer(" a")["input_ids"] != tokenizer("a")["input_ids"] else ""  # as add_prefix_space does
    words = [blank + word for word in text.split()]
    inputs = tokenizer(words, is_split_into_words=True, return_tensors="pt")
    firsts = [inputs.word_ids().index(i) for i in range(len(text.split()))]
    return network(**inputs).logits.softmax(-1)[0, firsts].numpy()


@torch.no_grad()
def of_texts(network, tokenizer, text):
    return network(**tokenizer(text, return_tensors="pt")).logits.softmax(-1).numpy()


def check_answers(folder, network, tokenizer, head):
    predictor = nt.load(folder)
    names = CLASSES if head == "sequence" else TAGS
    columns = [predictor.task.labels.id(name) for name in names]
    for text in TEXTS:
        asked = text if head == "sequence" else text.split()
        (ours,) = predictor.predict_proba([asked])
        theirs = (of_texts if head == "sequence" else of_words)(network, tokenizer, text)
        np.testing.assert_allclose(ours[..., columns].reshape(theirs.shape), theirs, atol=1e-5)


@pytest.mark.parametrize("head", AUTO)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_of_transformers_gives_the_same_answers(make_checkpoint, family, head, tmp_path):
    network, tokenizer = whole_model(make_checkpoint(family), head, tmp_path / "theirs")
    nt.convert(tmp_path / "theirs", tmp_path / "ours")
    check_answers(tmp_path / "ours", network, tokenizer, head)


@pytest.mark.parametrize("head", AUTO)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_plain_peft_adapter_gives_the_same_answers_or_says_what_it_lacks(make_checkpoint, family, head, tmp_path):
    network, tokenizer = plain_adapter(make_checkpoint(family), head, tmp_path / "theirs")
    labels = CLASSES if head == "sequence" else TAGS
    if (family, head) in RANDOM_HEADS:
        with pytest.raises(nt.ArtifactError, match=r"of the head, .*would be random"):
            nt.convert(tmp_path / "theirs", tmp_path / "ours", labels=labels)
        return
    nt.convert(tmp_path / "theirs", tmp_path / "ours", labels=labels)
    check_answers(tmp_path / "ours", network, tokenizer, head)


def change_json(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def change_tensors(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.fixture
def theirs(make_checkpoint, tmp_path):
    """A plain adapter of a BERT, whose pooler it adapts as well."""
    plain_adapter(make_checkpoint("bert"), "sequence", tmp_path / "theirs")
    return tmp_path / "theirs"


@pytest.fixture
def their_model(make_checkpoint, tmp_path):
    whole_model(make_checkpoint("bert"), "token", tmp_path / "whole")
    return tmp_path / "whole"


def test_what_is_not_recorded_is_said(theirs, tmp_path, capsys):
    nt.convert(theirs, tmp_path / "ours")
    said = capsys.readouterr().err
    for words in (
        "the names of the 3 labels. They are LABEL_0",
        "weights of the base",
        "tokens at most",
        "head is read",
    ):
        assert words in said
    assert nt.load(tmp_path / "ours").labels == ("LABEL_0", "LABEL_1", "LABEL_2")


def test_what_is_recorded_is_kept(make_checkpoint, tmp_path, capsys):
    whole_model(make_checkpoint("bert"), "sequence", tmp_path / "theirs", problem_type="multi_label_classification")
    nt.convert(tmp_path / "theirs", tmp_path / "ours")
    task = nt.load(tmp_path / "ours").task
    assert (task.labels.names, task.multi_label, task.thresholds) == (tuple(CLASSES), True, (0.5,) * 3)
    said = capsys.readouterr().err
    assert "thresholds" in said
    assert "names" not in said


def test_it_can_be_put_beside_ours_and_merged(theirs, tmp_path):
    ours = nt.convert(theirs, tmp_path / "ours", labels=CLASSES)
    bank, alone = nt.AdapterBank.load({"theirs": ours}), nt.load(ours)
    found = bank.predict([("theirs", text) for text in TEXTS])
    assert [one.label for one in found] == [one.label for one in alone.predict(TEXTS)]
    merged = nt.load(nt.merge([ours], tmp_path / "merged"))
    np.testing.assert_allclose(merged.predict_proba(TEXTS), alone.predict_proba(TEXTS), atol=1e-5)


@pytest.mark.parametrize("ending", [".modules_to_save.", ".modules_to_save.default."])
def test_names_that_older_versions_of_peft_wrote_are_read(theirs, tmp_path, ending):
    wanted = nt.load(nt.convert(theirs, tmp_path / "new", labels=CLASSES)).predict_proba(TEXTS)

    def rename(tensors):
        for name in [name for name in tensors if ".classifier." in name]:
            tensors[name.replace(".classifier.", f".classifier{ending}")] = tensors.pop(name)

    change_tensors(theirs / "adapter_model.safetensors", rename)
    found = nt.load(nt.convert(theirs, tmp_path / "old", labels=CLASSES)).predict_proba(TEXTS)
    np.testing.assert_array_equal(found, wanted)


def test_weights_in_pickles_beside_are_no_hindrance_and_not_read(their_model, tmp_path):
    (their_model / "pytorch_model.bin").write_bytes(b"not read")
    nt.convert(their_model, tmp_path / "ours")
    assert not (tmp_path / "ours" / "pytorch_model.bin").exists()


def drop(*names):
    def change(tensors):
        for name in list(tensors):
            if any(word in name for word in names):
                del tensors[name]

    return change


def reshape(name):
    def change(tensors):
        full = next(one for one in tensors if name in one)
        tensors[full] = torch.zeros(3, 3)

    return change


def resize(name, shape):
    def change(tensors):
        full = next(one for one in tensors if name in one)
        tensors[full] = torch.zeros(shape)

    return change


def copied(name, other):
    def change(tensors):
        for full in [one for one in tensors if f".{name}." in one]:
            tensors[full.replace(f".{name}.", f".{other}.")] = tensors[full].clone()

    return change


def spoil(name):
    def change(tensors):
        full = next(one for one in tensors if name in one)
        tensors[full] = torch.full_like(tensors[full], float("nan"))

    return change


TENSORS = "adapter_model.safetensors"
ODD_ADAPTERS = {
    "no head": (TENSORS, drop("classifier"), "lacks the last layer of the head"),
    "a head of other rows": (TENSORS, resize("classifier.bias", (2,)), "no row for each label"),
    "a head of a number": (TENSORS, resize("classifier.weight", ()), "lacks the last layer|no row for each label"),
    "a head of another width": (TENSORS, resize("classifier.weight", (3, 5)), "no row for each label"),
    "the head twice": (TENSORS, copied("classifier", "classifier.modules_to_save"), "holds a part of the head twice"),
    "a layer that is not named": ("config", {"target_modules": ["query"]}, "which its config does not name"),
    "an alpha that is no number": ("config", {"lora_alpha": True}, "lora_alpha must be"),
    "a base with an endless name": ("config", {"base_model_name_or_path": "a" * 5000}, "does not name its base"),
    "layers that are chosen": ("config", {"layers_to_transform": [0]}, "layers_to_transform"),
    "layers that are left out": ("config", {"exclude_modules": ["query"]}, "exclude_modules"),
    "half of a layer": (TENSORS, drop("layer.0.attention.self.query.lora_A"), "lacks the weights of layer"),
    "a layer less": (TENSORS, drop("layer.0.attention.self.query"), "lacks the weights of layer"),
    "half of the pooler": (TENSORS, drop("pooler.dense.lora_B"), "lacks the weights of layer"),
    "another shape": (TENSORS, reshape("layer.0.attention.self.query.lora_A"), "has shape"),
    "another pooler": (TENSORS, reshape("pooler.dense.lora_A"), "do not fit"),
    "no number": (TENSORS, spoil("lora_A"), "not finite"),
    "a foreign tensor": (TENSORS, lambda tensors: tensors.update(x=torch.zeros(2)), "do not belong"),
    "a pattern": ("config", {"target_modules": "(a+)+b"}, "target_modules must be a list"),
    "a rank of its own": ("config", {"rank_pattern": {"query": 8}}, "rank_pattern"),
    "another kind": ("config", {"peft_type": "IA3"}, "peft_type"),
    "another task": ("config", {"task_type": "CAUSAL_LM"}, "task_type"),
    "a start of its own": ("config", {"init_lora_weights": "pissa"}, "init_lora_weights"),
    "no base": ("config", {"base_model_name_or_path": None}, "does not name its base"),
    "a huge rank": ("config", {"r": 10**9}, "r must be"),
}


@pytest.mark.parametrize("kind", ODD_ADAPTERS)
def test_an_adapter_that_would_answer_wrongly_is_refused(theirs, tmp_path, kind):
    file, change, reason = ODD_ADAPTERS[kind]
    if file == TENSORS:
        change_tensors(theirs / TENSORS, change)
    else:
        change_json(theirs / "adapter_config.json", **change)
    with pytest.raises(NlpTransferError, match=reason):
        nt.convert(theirs, tmp_path / "ours", labels=CLASSES)
    assert not (tmp_path / "ours").exists()


ODD_MODELS = {
    "code": ({"auto_map": {"AutoModel": "evil.Model"}}, "may name code"),
    "another head": ({"architectures": ["BertForMaskedLM"]}, "is no ForSequenceClassification"),
    "no head named": ({"architectures": None}, "is no ForSequenceClassification"),
    "tags without a beginning": ({"id2label": dict(enumerate(["O", "I-A", "I-B", "I-C", "I-D"]))}, "tags must be O"),
    "the same name twice": ({"id2label": dict(enumerate(["O", "B-A", "I-A", "B-A", "I-A"]))}, "the same name"),
    "too few names": ({"id2label": {"0": "O", "1": "B-A", "2": "I-A"}}, "names 3 labels, and the head has 5"),
    "half a character": (
        {"id2label": dict(enumerate(["O", "B-\ud800", "I-\ud800", "B-A", "I-A"]))},
        "half a surrogate",
    ),
    "no name": ({"id2label": dict(enumerate(["O", "B-A", "I-A", " ", ""]))}, "or one has none"),
    "labels without end": ({"num_labels": 10**9, "id2label": None}, "num_labels is 1000000000"),
    "a network of one's own": ({"architectures": ["MyBertForTokenClassification"]}, "not transformers' own"),
    "a wider network": ({"hidden_size": 2**20, "intermediate_size": 2**20}, "which is no row for each label"),
    "a deeper network": ({"num_hidden_layers": 10**9}, "more than"),
}


@pytest.mark.parametrize("kind", ODD_MODELS)
def test_a_model_that_would_answer_wrongly_is_refused(their_model, tmp_path, kind):
    change, reason = ODD_MODELS[kind]
    change_json(their_model / "config.json", **change)
    with pytest.raises(NlpTransferError, match=reason):
        nt.convert(their_model, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"use_rslora": True},
        {"use_dora": True, "target_modules": ["query", "value"]},
        {"target_modules": "all-linear"},
        {"target_modules": ["query", "dense"], "modules_to_save": ["classifier", "pooler"]},
    ],
    ids=str,
)
def test_every_way_of_lora_that_is_read_gives_the_same_answers(make_checkpoint, tmp_path, options):
    network, tokenizer = plain_adapter(make_checkpoint("bert"), "sequence", tmp_path / "theirs", **options)
    nt.convert(tmp_path / "theirs", tmp_path / "ours", labels=CLASSES)
    check_answers(tmp_path / "ours", network, tokenizer, "sequence")


def test_counters_of_positions_that_older_checkpoints_hold_are_no_hindrance(make_checkpoint, tmp_path):
    base = shutil.copytree(make_checkpoint("bert"), tmp_path / "base")
    counters = {"bert.embeddings.position_ids": torch.arange(64)[None]}
    change_tensors(base / "model.safetensors", lambda tensors: tensors.update(counters))
    network, tokenizer = plain_adapter(base, "sequence", tmp_path / "theirs")
    nt.convert(tmp_path / "theirs", tmp_path / "ours", labels=CLASSES)
    check_answers(tmp_path / "ours", network, tokenizer, "sequence")
    network, tokenizer = whole_model(base, "token", tmp_path / "whole")
    change_tensors(tmp_path / "whole" / "model.safetensors", lambda tensors: tensors.update(counters))
    nt.convert(tmp_path / "whole", tmp_path / "more")
    check_answers(tmp_path / "more", network, tokenizer, "token")


def test_a_config_beside_an_adapter_is_heeded(theirs, tmp_path, capsys):
    names = {"id2label": dict(enumerate(CLASSES)), "problem_type": "multi_label_classification"}
    (theirs / "config.json").write_text(json.dumps(names))
    task = nt.load(nt.convert(theirs, tmp_path / "ours")).task
    assert (task.labels.names, task.multi_label) == (tuple(CLASSES), True)
    assert "the names of" not in capsys.readouterr().err
    change_json(theirs / "config.json", problem_type="regression")
    with pytest.raises(nt.ArtifactError, match="a regression"):
        nt.convert(theirs, tmp_path / "other")


def test_another_tokenizer_beside_an_adapter_is_refused(theirs, make_checkpoint, tmp_path):
    tokenizer = hf.AutoTokenizer.from_pretrained(make_checkpoint("bert"))
    tokenizer.save_pretrained(theirs)
    nt.convert(theirs, tmp_path / "ours", labels=CLASSES)
    tokenizer.add_tokens(["great"])
    tokenizer.save_pretrained(theirs)
    with pytest.raises(nt.ArtifactError, match="another tokenizer than its base"):
        nt.convert(theirs, tmp_path / "other", labels=CLASSES)


@pytest.mark.parametrize(
    ("change", "reason"), [({"vocab_size": 10**9}, "describes"), ({"num_hidden_layers": 10**9}, "more than")]
)
def test_a_base_that_takes_room_without_end_is_refused(theirs, make_checkpoint, tmp_path, change, reason):
    base = shutil.copytree(make_checkpoint("bert"), tmp_path / "base")
    change_json(base / "config.json", **change)
    with pytest.raises(NlpTransferError, match=reason):
        nt.convert(theirs, tmp_path / "ours", checkpoint=str(base), labels=CLASSES)


def test_a_model_with_tensors_that_do_not_belong_is_refused(their_model, tmp_path):
    change_tensors(
        their_model / "model.safetensors", lambda tensors: tensors.update({"classifier.extra": torch.ones(2)})
    )
    with pytest.raises(nt.ArtifactError, match="1 tensor that do not belong"):
        nt.convert(their_model, tmp_path / "ours")


def test_a_model_that_answers_in_tuples_is_read(make_checkpoint, tmp_path):
    network, tokenizer = whole_model(make_checkpoint("bert"), "sequence", tmp_path / "theirs")
    change_json(tmp_path / "theirs" / "config.json", return_dict=False)
    nt.convert(tmp_path / "theirs", tmp_path / "ours")
    check_answers(tmp_path / "ours", network, tokenizer, "sequence")


def test_a_base_is_no_model(checkpoint, tmp_path):
    with pytest.raises(NlpTransferError, match="is no ForSequenceClassification"):
        nt.convert(checkpoint, tmp_path / "ours")


def test_a_model_of_which_a_part_of_the_head_is_missing_is_refused(their_model, make_checkpoint, tmp_path):
    change_tensors(their_model / "model.safetensors", drop("classifier"))
    with pytest.raises(nt.ArtifactError, match=r"lacks the last layer of the head.*classifier"):
        nt.convert(their_model, tmp_path / "ours")
    whole_model(make_checkpoint("bert"), "sequence", tmp_path / "other")
    change_tensors(tmp_path / "other" / "model.safetensors", drop("pooler"))
    with pytest.raises(nt.ArtifactError, match=r"lacks bert.pooler.* of the head"):
        nt.convert(tmp_path / "other", tmp_path / "ours")


def test_settings_that_do_not_fit_are_refused(theirs, their_model, checkpoint, tmp_path):
    for source, options, reason in (
        (theirs, {"labels": ["a", "b"]}, "must be 3 different names, got 2"),
        (theirs, {"labels": ["a", "b", "b"]}, "must be 3 different names"),
        (theirs, {"labels": ["a", "b", "c", "c"]}, "must be 3 different names"),
        (their_model, {"checkpoint": checkpoint}, "need no base"),
        (their_model, {"multi_label": True}, "tags words"),
    ):
        with pytest.raises(nt.ConfigError, match=reason):
            nt.convert(source, tmp_path / "ours", **options)
    ours = nt.convert(theirs, tmp_path / "ours", labels=CLASSES)
    with pytest.raises(nt.ConfigError, match="one of ours already"):
        nt.convert(ours, tmp_path / "again")


def test_the_command_says_where_it_is_and_what_is_missing(call, theirs, tmp_path):
    code, out, err = call("convert", theirs, tmp_path / "ours", "--labels", *CLASSES)
    assert (code, out.strip()) == (0, str(tmp_path / "ours")), err
    assert "Not recorded: the weights of the base" in err
    code, _, err = call("convert", tmp_path / "nowhere", tmp_path / "other")
    assert (code, len(err.splitlines())) == (2, 1)
    assert call("predict", tmp_path / "ours", "a great film")[0] == 0
