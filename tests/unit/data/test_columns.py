"""Columns are found as named by the user, or by their usual names."""

import pytest

from nlp_transfer.data.columns import text_columns, text_only_columns, word_columns
from nlp_transfer.data.examples import Source
from nlp_transfer.data.tables import Table
from nlp_transfer.errors import DataError


def table(*columns: str, rows: list[tuple[str, ...]] | None = None) -> Table:
    """A table of four rows in which everything differs from row to row, unless rows are given."""
    values = rows or [tuple(f"{name} {number}" for name in columns) for number in range(4)]
    named = [(Source("file.csv", i), dict(zip(columns, row, strict=True))) for i, row in enumerate(values, start=2)]
    return Table("file.csv", columns, named, {})


def found(given: Table, **named: str) -> tuple[str, str | None, str]:
    settings = {"text": None, "text_pair": None, "label": None} | named
    columns = text_columns(given, **settings)
    return columns.text, columns.text_pair, columns.label


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (("text", "label"), ("text", None, "label")),
        (("Label", "Text"), ("Text", None, "Label")),
        (("id", "review", "sentiment"), ("review", None, "sentiment")),
        (("idx", "sentence1", "sentence2", "label"), ("sentence1", "sentence2", "label")),
        (("premise", "hypothesis", "gold_label"), ("premise", "hypothesis", "gold_label")),
        (("question1", "question2", "class"), ("question1", "question2", "class")),
        (("question", "sentence", "label", "idx"), ("question", "sentence", "label")),
        (("query", "passage", "label"), ("query", "passage", "label")),
        (("text", "text_pair", "label"), ("text", "text_pair", "label")),
        (("what was said", "label"), ("what was said", None, "label")),
        (("text", "mood"), ("text", None, "mood")),
    ],
    ids=lambda value: "+".join(filter(None, value)) if isinstance(value, tuple) else None,
)
def test_usual_names_are_recognised(columns, expected):
    assert found(table(*columns)) == expected


@pytest.mark.parametrize(
    ("columns", "named", "expected"),
    [
        (("text", "summary", "label"), {"text": "summary"}, ("summary", None, "label")),
        (("text", "label", "mood"), {"label": "mood"}, ("text", None, "mood")),
        (("a", "b", "c"), {"text": "a", "text_pair": "c", "label": "b"}, ("a", "c", "b")),
        (("sentence1", "sentence2", "label"), {"text": "sentence1"}, ("sentence1", None, "label")),
        (("a", "b"), {"text": "a"}, ("a", None, "b")),
        (("question", "answer"), {"label": "answer"}, ("question", None, "answer")),
        (("text", "title", "label"), {"text_pair": "title"}, ("text", "title", "label")),
    ],
    ids=lambda value: "+".join(filter(None, value)) if isinstance(value, tuple) else None,
)
def test_named_columns_come_first(columns, named, expected):
    assert found(table(*columns), **named) == expected


def test_of_two_unknown_columns_the_label_is_the_one_that_recurs():
    rows = [("yes", "one"), ("no", "two"), ("yes", "three"), ("no", "four")]
    assert found(table("column1", "column2", rows=rows)) == ("column2", None, "column1")


@pytest.mark.parametrize(
    ("columns", "named", "message"),
    [
        (
            ("text", "label"),
            {"text": "txt"},
            "file.csv: no column 'txt' for the text (--text-column). The columns are 'text', 'label'. "
            "Did you mean 'text'?",
        ),
        (("text", "label"), {"label": "lable"}, "Did you mean 'label'?"),
        (("text", "label"), {"text_pair": "pair"}, "no column 'pair' for the second text (--text-pair-column)"),
        (("text", "label"), {"text": "label"}, "column 'label' cannot be both text and label"),
        (("a", "label"), {"text": "a", "text_pair": "a"}, "column 'a' cannot be both text and second text"),
        (("a", "b"), {"text": "a", "text_pair": "b", "label": "b"}, "'b' cannot be both second text and label"),
        (("id", "text", "mood"), {}, "no column was recognised as the label. The columns are 'id', 'text', 'mood'"),
        (("id", "words", "label"), {}, "no column was recognised as the text"),
        (("a", "b"), {}, "name one with --label-column"),
        (("text",), {}, "no column was recognised as the label"),
        (tuple(f"c{i}" for i in range(25)), {}, "and 5 more"),
    ],
)
def test_what_cannot_be_told_is_asked_for(columns, named, message):
    with pytest.raises(DataError, match=r"^file\.csv: ") as caught:
        found(table(*columns), **named)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (("id", "text"), ("text", None)),
        (("premise", "hypothesis", "label"), ("premise", "hypothesis")),
        (("question", "sentence"), ("question", "sentence")),
        (("what was said",), ("what was said", None)),
    ],
    ids=lambda value: "+".join(filter(None, value)),
)
def test_texts_without_labels_are_recognised(columns, expected):
    assert text_only_columns(table(*columns), None, None) == expected


@pytest.mark.parametrize(
    ("columns", "named", "expected"),
    [
        (("id", "tokens", "ner_tags"), (None, None), ("tokens", "ner_tags")),
        (("words", "pos", "tags"), (None, None), ("words", "tags")),
        (("tokens", "pos_tags", "ner_tags"), (None, "pos_tags"), ("tokens", "pos_tags")),
        (("a", "b"), ("b", "a"), ("b", "a")),
    ],
)
def test_words_and_tags_are_recognised_or_named(columns, named, expected):
    assert word_columns(table(*columns), *named) == expected


@pytest.mark.parametrize(
    ("columns", "named", "message"),
    [
        (("text", "tags"), (None, None), "no column was recognised as the words"),
        (("tokens", "pos"), (None, None), "no column was recognised as the tags"),
        (("tokens", "ner_tags"), ("token", None), "Did you mean 'tokens'?"),
    ],
)
def test_missing_words_or_tags_are_refused(columns, named, message):
    with pytest.raises(DataError, match=r"^file\.csv: ") as caught:
        word_columns(table(*columns), *named)
    assert message in str(caught.value)
