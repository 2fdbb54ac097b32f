"""Many adapters on one base: a mixed batch gives what each gives alone, whatever happens around it."""

from __future__ import annotations

import random
import re
import shutil
import threading

import numpy as np
import psutil
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

import nlp_transfer as nt
from nlp_transfer.inference.unions import united
from nlp_transfer.merging import united_task
from tests.adapters_at_random import make_adapter
from tests.conftest import FAMILIES
from tests.corpus import REVIEWS, SENTENCES
from tests.promises.test_hostile_files import sign

TEXTS = [" ".join(words) for words, _ in SENTENCES[:5]] + [text for text, _ in REVIEWS[:5]] + ["", "lovely " * 150]
TOLERANCE = 1e-5
NUMBER = 16


@pytest.fixture(scope="module")
def folders(checkpoint, tmp_path_factory):
    """Eight adapters that classify and eight that tag; one of each trained the head alone."""
    root = tmp_path_factory.mktemp("adapters")
    kinds = {4: "head", 5: "head"}
    return {f"a{n}": make_adapter(checkpoint, root / f"a{n}", n, kinds.get(n, "lora")) for n in range(NUMBER)}


@pytest.fixture(scope="module")
def alone(folders):
    """What each adapter says of each text by itself."""
    predictors = {name: nt.load(folder) for name, folder in folders.items()}
    return {(name, text): predictors[name].predict(text) for name in folders for text in TEXTS}


@pytest.fixture
def bank(folders):
    return nt.AdapterBank.load(folders)


def differs(found, wanted) -> bool:
    if isinstance(wanted, list):
        places = [[(one.text, one.label, one.start, one.end) for one in both] for both in (found, wanted)]
        return places[0] != places[1] or any(
            abs(a.score - b.score) > TOLERANCE for a, b in zip(found, wanted, strict=True)
        )
    far = [abs(found.probabilities[name] - value) > TOLERANCE for name, value in wanted.probabilities.items()]
    return found.labels != wanted.labels or any(far)


def wrong(bank, requests, alone) -> list:
    answers = bank.predict(requests)
    return [request for request, found in zip(requests, answers, strict=True) if differs(found, alone[request])]


def test_a_mixed_batch_gives_each_request_the_answer_of_its_adapter_alone(bank, alone):
    requests = random.Random(0).sample(list(alone), len(alone))
    assert wrong(bank, requests, alone) == []
    assert bank.names == tuple(f"a{n}" for n in range(NUMBER))
    assert bank.labels("a0") == ("A0", "B0")


@pytest.mark.parametrize("family", FAMILIES)
def test_so_it_does_for_every_family(make_checkpoint, family, tmp_path):
    checkpoint = str(make_checkpoint(family))
    folders = {f"a{n}": make_adapter(checkpoint, tmp_path / f"a{n}", n, use_rslora=n == 2) for n in range(4)}
    predictors = {name: nt.load(folder) for name, folder in folders.items()}
    texts = [text for text in TEXTS if text]
    alone = {(name, text): predictors[name].predict(text) for name in folders for text in texts}
    requests = random.Random(0).sample(list(alone), len(alone))
    assert wrong(nt.AdapterBank.load(folders), requests, alone) == []


def test_a_bank_and_a_predictor_say_what_they_are(folders):
    bank = nt.AdapterBank.load({"mood": folders["a0"]})
    assert repr(bank) == "AdapterBank('mood')"
    assert re.fullmatch(r"Predictor\(text_classification, 2 labels, lora on '.+'\)", repr(nt.load(folders["a0"])))
    assert "(ner, 3 entity types, lora on" in repr(nt.load(folders["a1"]))


def test_adapters_come_and_go_between_calls(folders, alone):
    first = [f"a{n}" for n in range(4)]
    bank = nt.AdapterBank.load({name: folders[name] for name in first})
    bank.add("a7", folders["a7"])
    bank.remove("a1")
    assert bank.names == ("a0", "a2", "a3", "a7")
    assert wrong(bank, [(name, text) for name in bank.names for text in TEXTS], alone) == []
    bank.replace("a0", folders["a8"])
    answers = bank.predict([("a0", text) for text in TEXTS])
    assert not any(differs(found, alone["a8", text]) for found, text in zip(answers, TEXTS, strict=True))
    with pytest.raises(nt.ConfigError, match="'a0' in the bank already"):
        bank.add("a0", folders["a0"])
    with pytest.raises(nt.ConfigError, match="no adapter 'a1' in the bank"):
        bank.remove("a1")


def test_a_request_that_is_refused_harms_no_other(bank, alone):
    good = [("a0", TEXTS[0]), ("a3", TEXTS[1])]
    bad = [("a99", "x"), ("a0", ("a", "pair")), ("a0", 7), "a0", ("a1", "\ud800"), ("\ud800", "x")]
    for request in bad:
        with pytest.raises(nt.NlpTransferError):
            bank.predict([good[0], request])
    answers = bank.predict([good[0], *bad, good[1]], on_error="return")
    assert [isinstance(answer, nt.NlpTransferError) for answer in answers] == [False, *[True] * len(bad), False]
    assert not differs(answers[0], alone[good[0]])
    assert not differs(answers[-1], alone[good[1]])
    assert bank.predict([]) == []


def test_what_cannot_share_a_base_is_refused(checkpoint, make_checkpoint, folders, tmp_path):
    bank = nt.AdapterBank.load({"a0": folders["a0"]})
    other = shutil.copytree(make_checkpoint("bert"), tmp_path / "other")
    odd = {
        "whole weights": make_adapter(checkpoint, tmp_path / "whole", 0, "none"),
        "DoRA": make_adapter(checkpoint, tmp_path / "dora", 0, use_dora=True),
        "other encoder weights": make_adapter(str(make_checkpoint("electra")), tmp_path / "electra", 0),
    }
    for reason, folder in odd.items():
        with pytest.raises(nt.ArtifactError, match=reason):
            bank.add("odd", folder)
    assert bank.names == ("a0",)
    bank.add("elsewhere", folders["a2"], checkpoint=str(other))


def test_an_adapter_in_half_precision_is_held_like_the_others(folders, alone, tmp_path):
    folder = shutil.copytree(folders["a0"], tmp_path / "half")
    weights = folder / "adapter_model.safetensors"
    save_file({name: tensor.half() for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    sign(folder)
    bank = nt.AdapterBank.load({"half": folder, "a1": folders["a1"]})
    half, other = bank.predict([("half", TEXTS[0]), ("a1", TEXTS[1])])
    assert not differs(other, alone["a1", TEXTS[1]])
    assert half.probabilities == pytest.approx(alone["a0", TEXTS[0]].probabilities, abs=1e-2)


def test_within_autocast_a_bank_answers_as_a_model_alone_does(bank, folders):
    requests = [(name, text) for name in list(folders)[:10] for text in TEXTS[:3]]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = bank.predict(requests) + bank.predict([("a0", TEXTS[0])])
    labels = [answer for answer in found if isinstance(answer, nt.Classification)]
    exact = [answer for answer in bank.predict([*requests, ("a0", TEXTS[0])]) if isinstance(answer, nt.Classification)]
    assert labels
    for rounded, answer in zip(labels, exact, strict=True):
        assert rounded.probabilities == pytest.approx(answer.probabilities, abs=0.1)


def test_weights_that_give_no_numbers_are_an_error_of_that_text_alone(folders, alone, tmp_path):
    folder = shutil.copytree(folders["a0"], tmp_path / "huge")
    weights = folder / "adapter_model.safetensors"
    save_file({name: tensor.sign() * 3e38 for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    sign(folder)
    with pytest.raises(nt.ArtifactError, match="no finite probabilities"):
        nt.load(folder).predict("a text")
    bank = nt.AdapterBank.load({"huge": folder, "a1": folders["a1"]})
    huge, other = bank.predict([("huge", TEXTS[0]), ("a1", TEXTS[1])], on_error="return")
    assert isinstance(huge, nt.ArtifactError)
    assert not differs(other, alone["a1", TEXTS[1]])


def test_of_two_that_add_the_same_name_at_once_one_is_refused(folders):
    bank = nt.AdapterBank.load({"a1": folders["a1"]})
    refused = []

    def add():
        try:
            bank.add("a0", folders["a0"])
        except nt.ConfigError as error:
            refused.append(error)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 3


SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
VOCAB = 1000
OTHERS = {
    "a decoder": lambda: hf.LlamaModel(
        hf.LlamaConfig(**SIZES, vocab_size=VOCAB, num_key_value_heads=2, pad_token_id=0)
    ),
    "an encoder and a decoder": lambda: hf.BartModel(
        hf.BartConfig(
            vocab_size=VOCAB,
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            pad_token_id=0,
            eos_token_id=3,
        )
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_heads_that_look_for_the_last_token_cannot_share_and_work_alone(make_checkpoint, tmp_path, kind):
    checkpoint = shutil.copytree(make_checkpoint("roberta"), tmp_path / "checkpoint")
    (checkpoint / "config.json").unlink()
    OTHERS[kind]().save_pretrained(checkpoint)
    folder = make_adapter(str(checkpoint), tmp_path / "adapter", 0)
    assert nt.load(folder).predict("a lovely film").label in ("A0", "B0")
    with pytest.raises(nt.ArtifactError, match="cannot share a base"):
        nt.AdapterBank.load([folder])
    whole = make_adapter(str(checkpoint), tmp_path / "whole", 0, "none")  # with weights that are tied to others
    assert nt.load(whole).predict("a lovely film").label in ("A0", "B0")


def test_threads_get_right_answers_while_adapters_come_and_go(folders, alone):
    check_threads(folders, alone, num_requests=40)


@pytest.mark.slow
def test_eight_threads_with_a_thousand_requests_each_get_right_answers(folders, alone):
    check_threads(folders, alone, num_requests=1000)


def check_threads(folders, alone, num_requests, num_threads=8):
    steady = [f"a{n}" for n in range(8)]
    bank = nt.AdapterBank.load({name: folders[name] for name in steady})
    failed, done = [], threading.Event()

    def ask(seed):
        drawn = random.Random(seed)
        try:
            for _ in range(num_requests):
                requests = [(drawn.choice(steady), drawn.choice(TEXTS[:11])) for _ in range(drawn.randint(1, 3))]
                if drawn.random() < 0.05:
                    with pytest.raises(nt.ConfigError):
                        bank.predict([*requests, ("nobody", "x")])
                failed.extend(wrong(bank, requests, alone))
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is a failure
            failed.append(error)

    def change():
        while not done.is_set():
            for name in (f"a{n}" for n in range(8, NUMBER)):
                bank.add(name, folders[name])
                bank.replace("a0", folders["a0"])
                bank.remove(name)

    changing = threading.Thread(target=change)
    asking = [threading.Thread(target=ask, args=(seed,)) for seed in range(num_threads)]
    for thread in (changing, *asking):
        thread.start()
    for thread in asking:
        thread.join()
    done.set()
    changing.join()
    assert failed == []


def check_memory(folders, num_requests, allowed):
    bank = nt.AdapterBank.load({name: folders[name] for name in ("a0", "a1", "a2", "a3")})
    requests = [(f"a{n % 4}", TEXTS[n % 11]) for n in range(200)]
    for _ in range(20):
        bank.predict(requests)
    before = psutil.Process().memory_info().rss
    for _ in range(num_requests // len(requests)):
        bank.predict(requests)
    assert psutil.Process().memory_info().rss - before <= allowed


def test_memory_does_not_grow_with_the_number_of_requests(folders):
    check_memory(folders, 4_000, 5 * 2**20)


@pytest.mark.slow
def test_memory_does_not_grow_over_a_hundred_thousand_requests(folders):
    check_memory(folders, 100_000, 5 * 2**20)


def test_a_stream_names_the_text_that_it_refuses(folders):
    texts = [*["a text"] * 1030, None]
    with pytest.raises(nt.DataError, match=r"^text 1031: this model reads a text"):
        list(nt.load(folders["a0"]).stream(texts))


@pytest.mark.parametrize("numbers", [(0, 4, 8), (1, 5, 9), (2, 6)], ids=["one label", "entities", "any labels"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_union_gives_each_parts_answers_on_its_labels(make_checkpoint, family, numbers, tmp_path):
    """Whatever their encoders have learned: every part answers with its own."""
    checkpoint = str(make_checkpoint(family))
    folders = {f"part {number}": make_adapter(checkpoint, tmp_path / str(number), number) for number in numbers}
    bank = nt.AdapterBank.load(folders)
    bank.unite("all", list(folders))
    texts = [text for text, _ in REVIEWS[:6]]
    whole = np.vstack(bank.predict_proba([("all", text) for text in texts]))
    names = list(bank.labels("all"))
    names = nt.LabelSet.for_tags(names).names if numbers[0] == 1 else names
    for name, folder in folders.items():
        columns = [names.index(label) for label in nt.load(folder).task.labels.names]
        own, among = np.vstack(bank.predict_proba([(name, text) for text in texts])), whole[:, columns]
        among = among if numbers[0] == 2 else among / among.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(among, own, atol=1e-5)
        assert np.abs(own - np.vstack(list(nt.load(folder).predict_proba(texts)))).max() < 1e-5
    (answer,) = bank.predict([("all", texts[0])])
    kinds = [answer] if numbers[0] != 1 else answer
    assert all(type(kind).__name__ in ("Classification", "Entity") for kind in kinds)


def test_what_cannot_be_united_is_refused(folders):
    bank = nt.AdapterBank.load({str(i): folders[f"a{i}"] for i in range(6)})
    for parts, reason in {
        ("0", "1"): "another task",
        ("0", "2"): "another task",
        ("0",): "two or more",
        ("0", "0"): "two or more",
        ("0", "nobody"): "no adapter 'nobody'",
    }.items():
        with pytest.raises(nt.ConfigError, match=reason):
            bank.unite("all", parts)
    bank.unite("all", ["0", "4"])
    with pytest.raises(nt.ConfigError, match="'all' in the bank already"):
        bank.unite("all", ["0", "4"])
    with pytest.raises(nt.ConfigError, match="made of several"):
        bank.unite("more", ["all", "0"])
    with pytest.raises(nt.ConfigError, match="made of several"):
        bank.replace("all", folders["a0"])


def test_a_union_follows_its_parts(folders):
    bank = nt.AdapterBank.load({"a": folders["a0"], "b": folders["a4"]})
    bank.unite("all", ["a", "b"])
    assert bank.names == ("a", "b", "all")
    with pytest.raises(nt.ConfigError, match="a part of 'all'"):
        bank.remove("a")
    bank.replace("b", folders["a8"])
    assert bank.labels("all") == bank.labels("a") + bank.labels("b")
    with pytest.raises(nt.ConfigError, match="another task"):
        bank.replace("b", folders["a1"])
    assert bank.labels("b") == nt.load(folders["a8"]).labels
    bank.remove("all")
    bank.remove("a")
    assert bank.names == ("b",)


def test_windows_of_a_text_are_put_together_before_parts_are(checkpoint):
    first = nt.TextClassification(labels=nt.LabelSet(("o", "x", "y")), long_texts="windows")
    second = nt.TextClassification(labels=nt.LabelSet(("o", "p")), long_texts="windows")
    union = united_task([first, second], [1.0, 1.0])
    rows = [
        np.array([[0.05, 0.85, 0.10], [0.05, 0.05, 0.90]], np.float32),
        np.array([[0.9, 0.1], [0.01, 0.99]], np.float32),
    ]
    (found,) = united(rows, [first, second], union)
    among = found[[union.labels.id(name) for name in first.labels.names]]
    np.testing.assert_allclose(among / among.sum(), rows[0].mean(axis=0), atol=1e-6)
