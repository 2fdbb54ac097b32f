"""Every word gets exactly one prediction, in its place, whatever tokenizer and length; and every word counts."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from seqeval.metrics import f1_score
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedTokenizer
from transformers.modeling_outputs import TokenClassifierOutput

import nlp_transfer as nt
from nlp_transfer.data.encoded import UNREAD
from nlp_transfer.data.raw_text import split_words
from nlp_transfer.data.words import WordTokenizer
from tests.conftest import WORDS

LABELS = nt.LabelSet.for_tags(["PER", "LOC"])
KINDS = {"WordPiece": "bert", "Unigram": "xlm-roberta", "byte-level BPE": "roberta", "ModernBERT's BPE": "modernbert"}
SLOW = "a slow tokenizer"
PIECES = [
    *WORDS,
    "é́",
    "東京",
    "🙂",
    "\u200b",
    "ไทย",
    "don't",
    "U.S.",
    "(yes)",
    "#tag",
    "@you",
    "x" * 200,
    "\ufeff",
    "ﬁ",
]
BLANKS = [" ", "  ", "\n", "\t", "\u00a0", ", ", ""]


class Letters(PreTrainedTokenizer):
    """A tokenizer in Python: a token for each of some letters; others become unknown, blanks nothing."""

    vocab_files_names = {}  # noqa: RUF012
    model_input_names = ["input_ids", "token_type_ids", "attention_mask"]  # noqa: RUF012

    def __init__(self) -> None:
        names = ["<pad>", "<unk>", "<s>", "</s>", *"abcdefghijklmnopqrstuvwxyz"]
        self._ids = {name: i for i, name in enumerate(names)}
        super().__init__(pad_token="<pad>", unk_token="<unk>", cls_token="<s>", sep_token="</s>")

    @property
    def vocab_size(self) -> int:
        return len(self._ids)

    def get_vocab(self) -> dict[str, int]:
        return dict(self._ids)

    def _tokenize(self, text: str, **_: object) -> list[str]:
        return [character for character in text if not character.isspace() and character != "\u200b"]

    def _convert_token_to_id(self, token: str) -> int:
        return self._ids.get(token, 1)

    def _convert_id_to_token(self, index: int) -> str:
        return next(name for name, i in self._ids.items() if i == index)

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        return [2, *token_ids_0, 3]

    def get_special_tokens_mask(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None, already_has_special_tokens: bool = False
    ) -> list[int]:
        return [1, *[0] * len(token_ids_0), 1]

    def create_token_type_ids_from_sequences(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        return [0] * (len(token_ids_0) + 2)


@pytest.fixture(scope="module")
def predictor_of(make_checkpoint):
    @cache
    def make(kind: str) -> nt.Predictor:
        model = nt.load_token_classifier(str(make_checkpoint(KINDS.get(kind, "bert"))), LABELS)
        return nt.Predictor(replace(model, tokenizer=Letters()) if kind == SLOW else model, nt.Ner(labels=LABELS))

    return make


def probabilities(predictor: nt.Predictor, words: list[str], long_texts: str) -> np.ndarray:
    [found] = nt.Predictor(predictor.model, replace(predictor.task, long_texts=long_texts)).predict_proba([words])
    return found


def fits(predictor: nt.Predictor, words: list[str]) -> bool:
    tokenizer = WordTokenizer(predictor.model.tokenizer, predictor.task.token_limit(predictor.model))
    return UNREAD not in tokenizer.head(words).positions


def check_text(predictor: nt.Predictor, text: str) -> None:
    words = split_words(text)
    found = probabilities(predictor, [word.text for word in words], "windows")
    assert len(found) == len(words)
    assert np.allclose(found.sum(axis=1), 1, atol=1e-5)
    entities = predictor.predict(text)
    assert all(text[entity.start : entity.end] == entity.text for entity in entities)
    assert {entity.start for entity in entities} <= {word.start for word in words}
    assert {entity.end for entity in entities} <= {word.end for word in words}
    if fits(predictor, [word.text for word in words]):
        assert (found == probabilities(predictor, [word.text for word in words], "head")).all()


@pytest.mark.parametrize("kind", [*KINDS, SLOW])
def test_any_text_gets_one_prediction_a_word_at_its_offsets(predictor_of, kind):
    @settings(max_examples=30, deadline=None, derandomize=True, database=None)
    @given(st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from(BLANKS)), min_size=1, max_size=200))
    def check(pairs):
        check_text(predictor_of(kind), "".join(piece + blank for piece, blank in pairs))

    check()


@pytest.mark.parametrize("kind", [*KINDS, SLOW])
@pytest.mark.parametrize("number", [1, 2, 700, 20_000])
def test_a_text_of_any_number_of_words_gets_as_many_predictions(predictor_of, kind, number):
    rng = random.Random(number)
    text = " ".join(rng.choices(WORDS, k=number))
    check_text(predictor_of(kind), text)


class Knows(nn.Module):
    """A network that is right on every word it sees: each token has one tag."""

    def __init__(self, num_tokens: int, config: PreTrainedConfig) -> None:
        super().__init__()
        self.config = config
        self.tags = torch.tensor([LABELS.id(tag) for tag in ("O", "B-PER", "B-LOC")]).repeat(num_tokens)[:num_tokens]

    def forward(self, input_ids: Tensor, **_: Tensor) -> TokenClassifierOutput:
        return TokenClassifierOutput(logits=20.0 * nn.functional.one_hot(self.tags[input_ids], len(LABELS)).float())


@pytest.fixture(scope="module", params=KINDS)
def all_knowing(request, predictor_of) -> tuple[nt.Model, list[nt.TaggedExample], list[int]]:
    """A model, and texts with its tags as gold, of which about a third lies beyond the limit; how much does not."""
    model = predictor_of(request.param).model
    knows = replace(model, network=Knows(len(model.tokenizer), model.network.config))
    tokenizer = WordTokenizer(model.tokenizer, model.max_tokens)
    rng = random.Random(0)
    examples, seen = [], []
    for _ in range(30):
        words = rng.choices(WORDS, k=400)
        end = tokenizer.head(words).positions.index(UNREAD)
        words = words[: end + end // 2]
        tags = [LABELS.names[knows.network.tags[tokenizer.pieces(word)[0]]] for word in words]
        examples.append(nt.TaggedExample(tuple(words), tuple(tags)))
        seen.append(end)
    return knows, examples, seen


def test_the_usual_way_of_scoring_calls_a_third_unread_perfect_and_ours_tells_the_truth(all_knowing):
    model, examples, seen = all_knowing
    head = nt.evaluate(model, nt.Ner(labels=LABELS, long_texts="head"), "test", examples)
    gold = [list(example.tags) for example in examples]
    tags = [list(prediction.tags) for prediction in head.predictions]
    beyond = sum(map(len, gold)) - sum(seen)
    assert beyond / sum(map(len, gold)) == pytest.approx(1 / 3, abs=0.02)

    survivors = [[row[:end] for row, end in zip(rows, seen, strict=True)] for rows in (gold, tags)]
    assert f1_score(*survivors) == 1.0  # run_ner.py: what was cut is not asked for
    assert [len(row) for row in tags] == [len(row) for row in gold]
    assert head.metrics["f1"] == pytest.approx(f1_score(gold, tags))
    read = sum(tag != "O" for row in survivors[0] for tag in row) / sum(tag != "O" for row in gold for tag in row)
    assert head.metrics["f1"] == pytest.approx(2 * read / (1 + read))
    assert head.metrics["f1"] < 0.85


def test_in_windows_every_word_is_read_and_right(all_knowing):
    model, examples, _ = all_knowing
    windows = nt.evaluate(model, nt.Ner(labels=LABELS), "test", examples)
    assert [prediction.tags for prediction in windows.predictions] == [example.tags for example in examples]
    assert windows.metrics["f1"] == 1.0
