"""Label names, and tags of four schemes as one."""

import itertools
import random

import pytest
from seqeval.metrics.sequence_labeling import get_entities

from nlp_transfer.errors import DataError, did_you_mean
from nlp_transfer.labels import LabelSet, Span, detect_scheme, spans_of, split_tag, strict_spans_of, tags_of, to_iob2

NUM_WORDS = 12
SPANS = [Span("PER", 0, 2), Span("PER", 3, 4), Span("PER", 5, 6), Span("PER", 7, 8), Span("geo-loc", 9, 11)]
NEIGHBOURS = [Span("PER", 0, 2), Span("PER", 2, 3), Span("geo-loc", 3, 4), Span("PER", 4, 7)]


def written_in(scheme: str, spans: list[Span], num_words: int) -> list[str]:
    """Tags written straight from the definition of each scheme."""
    tags = ["O"] * num_words
    for label, start, end in spans:
        touches = any(other.label == label and other.end == start for other in spans)
        for i in range(start, end):
            first, last = i == start, i == end - 1
            prefix = {
                "IOB1": "B" if first and touches else "I",
                "IOB2": "B" if first else "I",
                "BIOES": "S" if first and last else "B" if first else "E" if last else "I",
                "BILOU": "U" if first and last else "B" if first else "L" if last else "I",
            }[scheme]
            tags[i] = f"{prefix}-{label}"
    return tags


def random_spans(rng: random.Random, num_words: int) -> list[Span]:
    spans, position = [], 0
    while position < num_words:
        end = min(num_words, position + rng.randint(1, 3))
        if rng.random() < 0.6:
            spans.append(Span(rng.choice(["PER", "geo-loc"]), position, end))
        position = end
    return spans


def test_an_id_is_the_position_of_its_name():
    labels = LabelSet(("no", "yes"))
    assert [labels.id(name) for name in labels.names] == [0, 1]
    assert len(labels) == 2
    assert "yes" in labels
    assert "maybe" not in labels


def test_collected_names_do_not_depend_on_the_order_of_the_data():
    assert LabelSet.collect(["b", "a", "b"]) == LabelSet.collect(["a", "b"]) == LabelSet(("a", "b"))


def test_every_entity_type_has_a_beginning_and_an_inside():
    assert LabelSet.for_tags(["geo-loc", "PER", "PER"]).names == ("O", "B-PER", "I-PER", "B-geo-loc", "I-geo-loc")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("postive", "'postive' is not one of the 2 labels: negative, positive. Did you mean 'positive'?"),
        ("zebra", "'zebra' is not one of the 2 labels: negative, positive."),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_known_one(name, message):
    with pytest.raises(DataError) as caught:
        LabelSet(("negative", "positive")).id(name)
    assert str(caught.value) == message


def test_a_message_names_no_more_than_twenty_labels():
    with pytest.raises(DataError) as caught:
        LabelSet(tuple(f"intent{i:03}" for i in range(150))).id("zebra")
    assert "150 labels" in str(caught.value)
    assert "intent019, ..." in str(caught.value)
    assert "intent020" not in str(caught.value)


def test_a_suggestion_is_made_only_when_a_name_is_near():
    assert did_you_mean("lable", ["label", "text"]) == " Did you mean 'label'?"
    assert did_you_mean("zzz", ["label", "text"]) == ""
    assert did_you_mean("lable", ["label", *map(str, range(1000))]) == ""  # comparing them all would take a while


@pytest.mark.parametrize(
    ("tag", "parts"),
    [("O", ("O", "")), ("B-PER", ("B", "PER")), ("B-geo-loc", ("B", "geo-loc")), ("I-a-b-c", ("I", "a-b-c"))],
)
def test_an_entity_type_may_hold_hyphens(tag, parts):
    assert split_tag(tag) == parts


@pytest.mark.parametrize("scheme", ["IOB1", "IOB2", "BIOES", "BILOU"])
@pytest.mark.parametrize(("spans", "num_words"), [(SPANS, NUM_WORDS), (NEIGHBOURS, 7)], ids=["apart", "touching"])
def test_tags_of_every_scheme_are_recognised_and_become_iob2(scheme, spans, num_words):
    tags = written_in(scheme, spans, num_words)
    assert detect_scheme([tags]) == scheme
    assert to_iob2(tags, scheme) == written_in("IOB2", spans, num_words)
    assert spans_of(to_iob2(tags, scheme)) == spans


@pytest.mark.parametrize("scheme", ["IOB1", "IOB2", "BIOES", "BILOU"])
def test_no_span_is_lost_or_moved_on_the_way_from_any_scheme(scheme):
    rng = random.Random(0)
    for _ in range(200):
        num_words = rng.randint(0, 12)
        spans = random_spans(rng, num_words)
        assert spans_of(to_iob2(written_in(scheme, spans, num_words), scheme)) == spans


@pytest.mark.parametrize(
    ("sentences", "scheme"),
    [
        ([["O", "O"]], "IOB2"),
        ([["B-X", "I-X"], ["I-X"]], "IOB2"),
        ([["I-X", "O"], ["I-X", "B-X"]], "IOB1"),
        ([["O"], ["S-X"]], "BIOES"),
        ([["B-X", "I-X"], ["B-X", "L-X"]], "BILOU"),
        ([["I-X", "I-Y"], ["B-Y", "I-Y"]], "IOB2"),
    ],
    ids=["no entity", "stray inside", "inside only", "single", "last", "both ways"],
)
def test_a_scheme_is_seen_from_all_sentences_together(sentences, scheme):
    assert detect_scheme(sentences) == scheme


@pytest.mark.parametrize(
    ("tags", "lenient", "strict"),
    [
        (["I-X", "I-X", "O"], [Span("X", 0, 2)], []),
        (["B-X", "I-Y"], [Span("X", 0, 1), Span("Y", 1, 2)], [Span("X", 0, 1)]),
        (["B-X", "B-X"], [Span("X", 0, 1), Span("X", 1, 2)], [Span("X", 0, 1), Span("X", 1, 2)]),
        ([], [], []),
    ],
    ids=["stray inside", "other type inside", "two beginnings", "no words"],
)
def test_a_stray_inside_begins_an_entity_unless_read_strictly(tags, lenient, strict):
    assert spans_of(tags) == lenient
    assert strict_spans_of(tags) == strict


def test_written_spans_are_read_back():
    rng = random.Random(1)
    for _ in range(200):
        num_words = rng.randint(0, 12)
        spans = random_spans(rng, num_words)
        assert spans_of(tags_of(spans, num_words)) == spans == strict_spans_of(tags_of(spans, num_words))


def conlleval_chunks(tags: tuple[str, ...]) -> list[tuple[str, int, int]]:
    """As seqeval's ``get_entities`` has it, which follows conlleval's rules for where a chunk begins and ends."""
    return [(label, start, end + 1) for label, start, end in get_entities(list(tags))]


@pytest.mark.parametrize(("scheme", "prefixes"), [("IOB1", "BI"), ("IOB2", "BI"), ("BIOES", "BIES")])
def test_illegal_sequences_are_read_as_conlleval_reads_them(scheme, prefixes):
    """Every sequence of up to four tags."""
    alphabet = ["O", *(f"{prefix}-{label}" for prefix in prefixes for label in "XY")]
    for length in range(1, 5):
        for tags in itertools.product(alphabet, repeat=length):
            assert [tuple(span) for span in spans_of(to_iob2(tags, scheme))] == conlleval_chunks(tags), tags


@pytest.mark.parametrize(
    ("sequences", "scheme"),
    [
        ([["B-P", "I-P"], ["B-P"], ["S-P"]], "IOB2"),
        ([["I-P", "I-P"], ["I-P"], ["S-P"]], "IOB1"),
        ([["B-P", "E-P"], ["S-P"], ["U-P"]], "BIOES"),
        ([["B-P", "L-P"], ["U-P"], ["E-P"]], "BILOU"),
        ([["B-P", "E-P"], ["B-P"]], "BIOES"),
    ],
)
def test_a_slip_of_the_pen_does_not_make_a_file_another_scheme(sequences, scheme):
    assert detect_scheme(sequences) == scheme
