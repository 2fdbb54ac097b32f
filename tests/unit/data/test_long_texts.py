"""What is read of a text that is too long, by each policy."""

from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

import nlp_transfer as nt
from nlp_transfer.data.framing import frame_of
from nlp_transfer.data.long_texts import pieces_of
from tests.conftest import FAMILIES


@given(length=st.integers(9, 500), room=st.integers(4, 100))
def test_windows_hold_every_token_and_overlap(length, room):
    if length <= room:
        return
    ids = list(range(length))
    windows = pieces_of(ids, room, "windows")
    assert sorted({i for window in windows for i in window}) == ids
    assert all(len(window) == room and window == ids[window[0] : window[0] + room] for window in windows)
    assert all(later[0] <= earlier[-1] + 1 and later[0] > earlier[0] for earlier, later in pairwise(windows))


@given(length=st.integers(9, 500), room=st.integers(4, 8))
def test_head_and_head_with_tail_hold_as_much_as_fits(length, room):
    ids = list(range(length))
    assert pieces_of(ids, room, "head") == [ids[:room]]
    [both] = pieces_of(ids, room, "head_tail")
    assert len(both) == room == len(set(both))
    assert (both[0], both[-1]) == (0, length - 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_piece_is_framed_as_the_tokenizer_frames_a_text(make_checkpoint, family):
    model = nt.load_sequence_classifier(str(make_checkpoint(family)), nt.LabelSet(("a", "b")))
    whole = dict(model.tokenizer("Ada left Paris"))
    frame = frame_of(model.tokenizer)
    assert frame.around(frame.inside(whole["input_ids"])) == whole


@pytest.mark.parametrize(("policy", "rows", "cut"), [("head", 1, 1), ("head_tail", 1, 1), ("windows", 6, 0)])
def test_each_policy_reads_what_it_says_and_counts_what_it_cuts(checkpoint, policy, rows, cut):
    labels = nt.LabelSet(("a", "b"))
    task = nt.TextClassification(labels=labels, max_tokens=16, long_texts=policy)
    model = nt.load_sequence_classifier(checkpoint, labels)
    examples = [nt.TextExample("film " * 31, ("a",)), nt.TextExample("a film", ("b",))]
    split = task.encode(examples, model)
    assert split.examples.tolist() == [0] * rows + [1]
    assert max(split.lengths) <= 16
    assert split.num_cut == cut
    evaluation = nt.evaluate(model, task, "test", examples)
    assert len(evaluation.predictions) == 2
    assert sum(evaluation.predictions[0].probabilities.values()) == pytest.approx(1, abs=1e-5)


def test_of_pairs_the_longer_one_is_cut(checkpoint):
    labels = nt.LabelSet(("a", "b"))
    with pytest.raises(nt.ConfigError, match="must be 'head' for pairs"):
        nt.TextClassification(labels=labels, text_pair=True, long_texts="windows")
