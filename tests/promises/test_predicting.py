"""What a predictor takes and gives: anything that holds texts in order, and one typed error for anything else."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest

import nlp_transfer as nt
from tests.adapters_at_random import make_adapter

TEXTS = ["a lovely film", "", "word " * 200]


@pytest.fixture(scope="module")
def predictor(checkpoint, tmp_path_factory):
    return nt.load(make_adapter(checkpoint, tmp_path_factory.mktemp("adapter") / "model", 0))


HOLDERS = {"list": list, "generator": iter, "array": np.array, "series": pd.Series, "map": lambda x: map(str, x)}


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
def test_whatever_holds_texts_in_order_is_read(predictor, hold):
    wanted = [found.labels for found in predictor.predict(TEXTS)]
    assert [found.labels for found in predictor.predict(hold(TEXTS))] == wanted
    assert [found.labels for found in predictor.stream(hold(TEXTS))] == wanted
    assert predictor.predict_proba(hold(TEXTS)).shape == (3, 2)
    assert predictor.embed(hold(TEXTS)).shape == (3, 32)


@pytest.mark.parametrize(
    "odd", [None, 7, b"abc", {"a", "b"}, {"a": 1}, pd.DataFrame({"text": ["a"]})], ids=lambda odd: type(odd).__name__
)
def test_anything_else_is_one_typed_error(predictor, odd):
    for work in (predictor.predict, predictor.predict_proba, predictor.embed, lambda odd: list(predictor.stream(odd))):
        with pytest.raises(nt.DataError, match="expected a list of texts"):
            work(odd)


def test_one_text_is_no_stream_and_no_list(predictor):
    for work in (predictor.predict_proba, predictor.embed, lambda text: list(predictor.stream(text))):
        with pytest.raises(nt.DataError):
            work("abc")


def test_an_error_stands_in_the_place_of_its_text_alone(predictor):
    found = predictor.predict(["a film", None, "\ud800", ("a", "b"), "a film"], on_error="return")
    assert [isinstance(one, nt.DataError) for one in found] == [False, True, True, True, False]
    assert found[0].labels == found[4].labels
    with pytest.raises(nt.ConfigError, match="on_error must be one of 'raise', 'return', got 'skip'"):
        predictor.predict(["a film"], on_error="skip")


def test_padding_on_the_left_moves_no_word(checkpoint, tmp_path):
    """As a tokenizer may have been saved, for a decoder perhaps."""
    left = shutil.copytree(checkpoint, tmp_path / "left")
    settings = json.loads((left / "tokenizer_config.json").read_text())
    (left / "tokenizer_config.json").write_text(json.dumps(settings | {"padding_side": "left"}))
    classifier = nt.load(make_adapter(str(left), tmp_path / "model", 0))
    alone, together = classifier.predict_proba(TEXTS[:1]), classifier.predict_proba(TEXTS)
    np.testing.assert_allclose(alone[0], together[0], atol=1e-6)


def test_an_empty_text_is_answered_also_where_the_tokenizer_adds_no_token_of_its_own(checkpoint, tmp_path):
    bare = shutil.copytree(checkpoint, tmp_path / "bare")
    raw = json.loads((bare / "tokenizer.json").read_text())
    (bare / "tokenizer.json").write_text(json.dumps(raw | {"post_processor": None}))
    classifier = nt.load(make_adapter(str(bare), tmp_path / "model", 0))
    alone, together = classifier.predict_proba([""]), classifier.predict_proba(["", "a film"])
    assert np.isfinite(alone).all()
    np.testing.assert_allclose(alone[0], together[0], atol=1e-6)


def test_an_embedding_is_the_mean_of_the_hidden_states(predictor):
    together, alone = predictor.embed(TEXTS[:2]), predictor.embed(TEXTS[:1])
    np.testing.assert_allclose(together[0], alone[0], atol=1e-5)
    assert not np.allclose(together[0], together[1])


def test_what_is_no_model_folder_is_named_for_what_it_is(predictor, tmp_path):
    (tmp_path / "file").write_text("")
    for name, what in (("nowhere", "does not exist"), ("file", "is a file"), (".", "is no saved model")):
        with pytest.raises(nt.ArtifactError, match=what):
            nt.load(tmp_path / name)
