"""Hidden tokens: the wished share, others in each epoch, the same in any batch, and no special ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

import nlp_transfer as nt
from nlp_transfer.data.loading import Loading
from nlp_transfer.data.masking import TokenMasking


@pytest.fixture
def tokenizer(checkpoint):
    return AutoTokenizer.from_pretrained(checkpoint)


def test_the_share_is_hidden_and_special_tokens_stay(tokenizer):
    masking = TokenMasking.of(tokenizer, 0.25, seed=0)
    ids = np.array([tokenizer.cls_token_id, *[7] * 10_000, tokenizer.sep_token_id])
    hidden = masking(ids, epoch=0, example=3, start=0) == tokenizer.mask_token_id
    assert not hidden[[0, -1]].any()
    assert hidden.mean() == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("change", [{"epoch": 1}, {"example": 4}, {"start": 2}])
def test_other_tokens_are_hidden_in_another_epoch_example_or_window(tokenizer, change):
    place = {"epoch": 0, "example": 3, "start": 0}
    ids = np.arange(10, 500)
    cases = [(0, place), (0, place), (0, place | change), (1, place)]
    masks = [TokenMasking.of(tokenizer, 0.3, seed)(ids, **at) for seed, at in cases]
    assert (masks[0] == masks[1]).all()
    assert (masks[0] != masks[2]).any()
    assert (masks[0] != masks[3]).any()


@pytest.mark.parametrize("family", ["bert", "xlnet"])  # padding on the right and on the left
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_row_is_hidden_alike_in_any_batch_and_by_any_worker(make_checkpoint, tsv, family, num_workers):
    splits = nt.read_text_classification(nt.TextData(train=str(tsv)))
    task = nt.TextClassification.for_splits(splits, nt.TextClassificationConfig())
    model = nt.load_sequence_classifier(str(make_checkpoint(family)), task.labels)
    split, masking = task.encode(splits.train, model), TokenMasking.of(model.tokenizer, 0.5, 0)
    plain = split.batch((0, 1, 2, 3)).inputs["input_ids"]
    (together,) = Loading(split, masking).batches([(0, 1, 2, 3)], epoch=2)
    alone = list(Loading(split, masking, num_workers).batches([(2,), (0,), (3,), (1,)], epoch=2))
    assert (together.inputs["input_ids"] != plain).any()
    for place, row in enumerate((2, 0, 3, 1)):
        length = int(split.lengths[row])
        whole = together.inputs["input_ids"][row]
        own = whole[:length] if family == "bert" else whole[-length:]
        assert torch.equal(alone[place].inputs["input_ids"][0], own)


def test_a_tokenizer_without_a_mask_token_is_refused(tokenizer):
    tokenizer.mask_token = None
    with pytest.raises(nt.ConfigError, match="no mask token"):
        TokenMasking.of(tokenizer, 0.1, 0)
