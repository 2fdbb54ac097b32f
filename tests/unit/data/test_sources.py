"""Files are read whatever they are encoded and packed in, alone, in shards, or together in a folder."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path

import pytest

from nlp_transfer.data.config import NerData, TextData
from nlp_transfer.data.notes import Notes
from nlp_transfer.data.reading import read_ner, read_ner_file, read_text_classification, read_text_file
from nlp_transfer.errors import DataError

ROWS = "text,label\nété 東京,x\nplain,y\n"
EXPECTED = [("été 東京", "x", 2), ("plain", "y", 3)]


def texts_and_notes(spelling, config):
    notes = Notes()
    return list(read_text_file(spelling, config, notes, multi_label=False)), notes.lines()


def tagged_and_notes(spelling, config):
    notes = Notes()
    return list(read_ner_file(spelling, config, notes)), notes.lines()


def read(path: Path) -> list[tuple[str, str, int]]:
    examples, _ = texts_and_notes(str(path), TextData(train=str(path)))
    return [(e.text, e.labels[0], e.source.line) for e in examples]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("pack", [lambda raw: raw, gzip.compress, bz2.compress, lzma.compress])
def test_a_text_file_is_read_in_any_encoding_and_packing(tmp_path, encoding, ends, pack):
    path = tmp_path / "rows.csv"
    path.write_bytes(pack(ROWS.replace("\n", ends).encode(encoding)))
    assert read(path) == EXPECTED


@pytest.mark.parametrize(("mark", "said"), [(";", "semicolons"), ("\t", "tabs")])
def test_a_csv_file_may_part_its_columns_otherwise_and_that_is_said(tmp_path, mark, said):
    path = tmp_path / "rows.csv"
    path.write_text(ROWS.replace(",", mark).replace("plain", '"a, b"'))
    examples, notes = texts_and_notes(str(path), TextData(train=str(path)))
    assert [e.text for e in examples] == ["été 東京", "a, b"]
    assert f"{path}: columns are parted by {said}." in notes


def write_rows(path: Path, *texts: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("text,label\n" + "".join(f"{text},{'xy'[i % 2]}\n" for i, text in enumerate(texts)))


def test_shards_are_read_one_after_the_other(tmp_path):
    for number in (2, 1, 10):
        write_rows(tmp_path / f"part-{number:02}.csv", f"text {number}", f"more {number}")
    examples, _ = texts_and_notes(f"{tmp_path}/part-*.csv", TextData(train=""))
    assert [e.text for e in examples] == [f"{word} {number}" for number in (1, 2, 10) for word in ("text", "more")]
    assert examples[-1].source.file == str(tmp_path / "part-10.csv")
    with pytest.raises(DataError, match="no file fits this pattern"):
        texts_and_notes(f"{tmp_path}/part-*.tsv", TextData(train=""))


LAYOUTS = {
    "files": {"train": ["train.csv"], "validation": ["dev.csv"], "test": ["test.csv"]},
    "shards": {
        "train": ["train-00000-of-00002.csv", "train-00001-of-00002.csv"],
        "validation": ["validation-00000-of-00001.csv"],
        "test": ["test-00000-of-00001.csv"],
    },
    "folders": {"train": ["train/a.csv", "train/b.csv"], "validation": ["valid/a.csv"], "test": ["test/a.csv"]},
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_folder_holds_all_parts(tmp_path, layout):
    (tmp_path / "README.md").write_text("# not data")
    (tmp_path / "categories.json").write_text("[]")
    for part, names in layout.items():
        for name in names:
            write_rows(tmp_path / name, f"{part} one", f"{part} two")
    splits = read_text_classification(TextData(train=str(tmp_path)))
    for part, names in layout.items():
        texts = [e.text for e in getattr(splits, part)]
        assert texts == [f"{part} one", f"{part} two"] * len(names)


def test_json_lines_may_end_in_json(tmp_path):
    for part in ("train", "dev", "test"):
        rows = [json.dumps({"text": f"{part} {label}", "label": label}) for label in ("x", "y")]
        (tmp_path / f"{part}.json").write_text("\n".join(rows) + "\n")
    splits = read_text_classification(TextData(train=str(tmp_path)))
    assert [e.text for e in splits.validation] == ["dev x", "dev y"]


@pytest.mark.parametrize("names", [["train.csv", "train.json"], ["train/a.csv", "train/dataset_info.json"]])
def test_a_json_file_beside_another_format_tells_of_it_and_is_not_read(tmp_path, names):
    data, other = names
    write_rows(tmp_path / data, *(f"text {i}" for i in range(20)))
    (tmp_path / other).write_text("{}")
    splits = read_text_classification(TextData(train=str(tmp_path)))
    assert splits.train[0].source.file == str(tmp_path / data)
    assert any(f"1 file not read: {other}." in note for note in splits.notes)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["rows.csv"], "it holds rows.csv"),
        (["train.csv", "train.tsv"], "the train part may be train.csv or train.tsv"),
        (["train.csv", "train.csv.gz"], "the train part may be train.csv or train.csv.gz"),
        (["train.csv", "train/a.csv"], "the train part may be train.csv or train/"),
        (["train.csv", "dev.csv", "validation.csv"], "the validation part may be dev.csv or validation.csv"),
        (["train-00000-of-00003.csv", "train-00002-of-00003.csv"], "some are missing"),
        (["train-1.csv", "train-2.tsv"], "may be train-*.csv or train-*.tsv"),
        ([], "it holds nothing"),
    ],
)
def test_a_folder_without_a_clear_training_part_is_refused(tmp_path, files, words):
    for name in files:
        write_rows(tmp_path / name, "a", "b")
    with pytest.raises(DataError) as caught:
        read_text_classification(TextData(train=str(tmp_path)))
    assert words in str(caught.value)


def test_a_named_part_stands_in_for_that_of_the_folder(tmp_path):
    for name in ("train", "test"):
        write_rows(tmp_path / "set" / f"{name}.csv", f"{name} one", f"{name} two")
    write_rows(tmp_path / "other.csv", "other one", "other two")
    splits = read_text_classification(
        TextData(train=str(tmp_path / "set"), validation=str(tmp_path / "other.csv"), test=str(tmp_path / "other.csv"))
    )
    assert [e.text for e in splits.train] == ["train one", "train two"]
    assert [e.text for e in splits.test] == ["other one", "other two"]


def test_rows_without_a_label_are_skipped_if_so_wished_and_counted(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text,label\na,x\nb,\nc,  \nd,y\n")
    config = TextData(train=str(path), on_missing_label="skip")
    examples, notes = texts_and_notes(str(path), config)
    assert [e.text for e in examples] == ["a", "d"]
    assert f"Rows without a label, skipped: 2 (first: {path}:3)." in notes


@pytest.mark.parametrize(("choice", "labels"), [("merge", {"pos", "neg"}), ("keep", {"pos", "Pos", "POS", "neg"})])
def test_labels_that_differ_in_case_are_merged_or_kept_as_wished(tmp_path, choice, labels):
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    train.write_text("text,label\n" + "".join(f"text {i},{label}\n" for i, label in enumerate(["pos", "neg"] * 9)))
    test.write_text("text,label\na,Pos\nb,POS\nc,neg\n")
    config = TextData(train=str(train), validation=str(test), on_similar_labels=choice)
    splits = read_text_classification(config)
    assert {label for part in (splits.train, splits.validation) for e in part for label in e.labels} == labels
    assert any("'pos' (9, first at" in note and "merged into 'pos'" in note for note in splits.notes) == (
        choice == "merge"
    )


def test_only_shards_and_not_every_name_that_begins_alike_belong_to_a_part(tmp_path):
    for name in ("train.csv", "train_metadata.csv", "training_notes.txt"):
        write_rows(tmp_path / name, f"{name} one", f"{name} two")
    write_rows(tmp_path / "dev.csv", "a", "b")
    splits = read_text_classification(TextData(train=str(tmp_path)))
    assert [e.text for e in splits.train] == ["train.csv one", "train.csv two"]


CONLL_U = """# sent_id = 1
# text = He's in Rome
1-2	He's	_	_
1	He	PRON	O
2	's	AUX	O
2.1	_	X	O
3	in	ADP	O
4	Rome	PROPN	B-LOC

1	Ada	PROPN	B-PER
2	left	VERB	O
"""


def test_conll_u_is_read_by_its_words(tmp_path):
    path = tmp_path / "set.conllu"
    path.write_text(CONLL_U)
    examples, notes = tagged_and_notes(str(path), NerData(train=str(path)))
    assert [e.words for e in examples] == [("He", "'s", "in", "Rome"), ("Ada", "left")]
    assert [e.tags[-1] for e in examples] == ["B-LOC", "O"]
    assert any("column 0 counts the words" in note for note in notes)


TEXT = "Ada Lovelace, of London."
SPAN_ROWS = {
    "lists": {"text": TEXT, "entities": [[17, 23, "LOC"], [0, 12, "PER"]]},
    "objects": {
        "text": TEXT,
        "spans": [{"start": 0, "end": 12, "label": "PER"}, {"start": 17, "end": 23, "label": "LOC"}],
    },
    "doccano": {"text": TEXT, "label": [[0, 12, "PER"], [17, 23, "LOC"]]},
    "offsets": {
        "text": TEXT,
        "entities": [
            {"start_offset": 0, "end_offset": 12, "label": "PER"},
            {"start_offset": 17, "end_offset": 23, "label": "LOC"},
        ],
    },
}


@pytest.mark.parametrize("row", SPAN_ROWS.values(), ids=SPAN_ROWS)
def test_spans_of_characters_become_tags_of_words(tmp_path, row):
    path = tmp_path / "set.jsonl"
    path.write_text(json.dumps(row) + "\n")
    [example], _ = tagged_and_notes(str(path), NerData(train=str(path)))
    assert example.words == ("Ada", "Lovelace", ",", "of", "London", ".")
    assert example.tags == ("B-PER", "I-PER", "O", "O", "B-LOC", "O")


def test_a_span_that_cuts_a_word_is_widened_and_counted_or_refused(tmp_path):
    path = tmp_path / "set.jsonl"
    path.write_text(json.dumps({"text": TEXT, "entities": [[1, 9, "PER"]]}) + "\n")
    [example], notes = tagged_and_notes(str(path), NerData(train=str(path)))
    assert example.tags == ("B-PER", "I-PER", "O", "O", "O", "O")
    assert f"Spans that cut a word, widened to whole words: 1 (first: {path}:1)." in notes
    with pytest.raises(DataError, match=r"span 1 to 9 \('da Lovel'\) cuts a word"):
        tagged_and_notes(str(path), NerData(train=str(path), on_misaligned_span="refuse"))


@pytest.mark.parametrize(
    ("tags", "read"),
    [
        ("O I-PER I-PER O", "O B-PER I-PER O"),
        ("B-PER I-LOC O O", "B-PER B-LOC O O"),
        ("B-PER E-PER O S-LOC", "B-PER I-PER O B-LOC"),
        ("B-PER O E-PER S-LOC", "B-PER O B-PER B-LOC"),
        ("B-PER E-PER I-PER E-PER", "B-PER I-PER B-PER I-PER"),
    ],
)
def test_illegal_tags_are_repaired_and_counted_or_refused(tmp_path, tags, read):
    path = tmp_path / "set.conll"
    path.write_text("".join(f"word {tag}\n" for tag in tags.split()) + "\nAda B-X\nof I-X\n" * ("S-" not in tags))
    examples, notes = tagged_and_notes(str(path), NerData(train=str(path)))
    assert examples[0].tags == tuple(read.split())
    is_legal = tags == "B-PER E-PER O S-LOC"
    assert any(", repaired: " in note for note in notes) == (not is_legal)
    if not is_legal:
        with pytest.raises(DataError, match="cannot stand"):
            tagged_and_notes(str(path), NerData(train=str(path), on_illegal_tags="refuse"))


def test_comments_are_told_from_words_and_counted(tmp_path):
    path = tmp_path / "set.conll"
    path.write_text("# sent_id = 1\n# O\nHi O\n\n# sent_id = 2\nAda B-PER\n# O\n#MeToo O\n")
    examples, notes = tagged_and_notes(str(path), NerData(train=str(path)))
    assert [e.words for e in examples] == [("#", "Hi"), ("Ada", "#", "#MeToo")]
    assert f"Comment lines of {path}, passed over: 2 (first: {path}:1)." in notes


def test_types_are_merged_before_tags_are_repaired(tmp_path):
    path = tmp_path / "set.conll"
    path.write_text("Ada B-PER\nLovelace I-Per\n\nBob B-PER\n")
    splits = read_ner(NerData(train=str(path), validation=str(path), allow_leakage=True, on_similar_labels="merge"))
    assert splits.train[0].tags == ("B-PER", "I-PER")
    assert not any(", repaired: " in note for note in splits.notes)


def test_empty_columns_without_a_name_are_left_out(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text,label,,\na,x,,\nb,y,,\n")
    assert read(path) == [("a", "x", 2), ("b", "y", 3)]


def test_rejected_annotations_are_skipped_and_counted(tmp_path):
    path = tmp_path / "set.jsonl"
    rows = [{"text": TEXT, "spans": [], "answer": answer} for answer in ("accept", "reject", "ignore")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    examples, notes = tagged_and_notes(str(path), NerData(train=str(path)))
    assert len(examples) == 1
    assert any(
        note == f"Texts that were rejected or ignored in annotation, skipped: 2 (first: {path}:2)." for note in notes
    )


@pytest.mark.parametrize("line", ["[ O", "{ O", "BZhou B-PER", "PAR O"])
def test_a_column_file_may_begin_with_anything(tmp_path, line):
    path = tmp_path / "set.conll"
    path.write_text(f"{line}\nAda B-PER\n")
    [example], _ = tagged_and_notes(str(path), NerData(train=str(path)))
    assert example.words == (line.split()[0], "Ada")


def test_spans_that_are_all_shifted_are_told(tmp_path):
    path = tmp_path / "f.jsonl"
    rows = [{"text": f"Ada left Paris {i}", "entities": [[1, 4, "PER"], [10, 15, "LOC"]]} for i in range(10)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, notes = tagged_and_notes(str(path), NerData(train=""))
    assert f"{path}: 20 of 20 spans cut a word. Are all offsets shifted?" in notes
