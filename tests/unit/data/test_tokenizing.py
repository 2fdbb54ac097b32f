"""Texts tokenized at once are tokenized as one by one."""

import pytest

import nlp_transfer as nt
from nlp_transfer.data.tokenizing import encode_texts
from tests.conftest import FAMILIES, TEXTS

LABELS = nt.LabelSet(("x", "y"))
ODD = ["", " ", "\u200b", "<s> not a mark </s>", "🙂 東京", "x" * 300]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("special_tokens", [True, False])
def test_many_texts_give_the_inputs_that_the_tokenizer_itself_gives(make_checkpoint, family, special_tokens):
    tokenizer = nt.load_sequence_classifier(str(make_checkpoint(family)), LABELS).tokenizer
    texts = [*TEXTS, *ODD]
    tokenizer(texts, truncation=True, max_length=5, padding=True)  # what an earlier call asked for is forgotten
    for pairs in (None, texts[::-1]):
        wanted = tokenizer(texts, pairs, add_special_tokens=special_tokens, return_attention_mask=False)
        found = encode_texts(tokenizer, texts, pairs, special_tokens=special_tokens)
        assert found == [{name: wanted[name][i] for name in wanted} for i in range(len(texts))]
