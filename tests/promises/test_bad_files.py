"""Every malformed file of the readers' table, as the command line meets it: exit code 2 and one line."""

from __future__ import annotations

import pytest

from tests.unit.data.test_bad_input import FOLDERS, TAG_FILES, TEXT_FILES

CASES = [
    *(pytest.param("text_classification", *case, id=f"texts: {name}") for name, case in TEXT_FILES.items()),
    *(pytest.param("ner", *case, id=f"tags: {name}") for name, case in TAG_FILES.items()),
]


@pytest.mark.parametrize(("task", "name", "content", "place"), CASES)
def test_a_bad_file_ends_in_exit_code_2_and_one_line(call, task, name, content, place, tmp_path):
    (tmp_path / name).write_bytes(content)
    for command in (
        ["run", task, "--train", name, "--validation", name, "--allow-leakage"],
        ["check", name, "--task", task],
    ):
        code, out, err = call(*command)
        *before, last = err.splitlines()
        assert (code, out) == (2, "")
        assert last.startswith("error: ")
        assert f"{name}{place}" in last
        assert len(last) < 600
        assert not any("Traceback" in line for line in before)


@pytest.mark.parametrize("task", ["text_classification", "ner"])
@pytest.mark.parametrize(("files", "place"), FOLDERS.values(), ids=FOLDERS)
def test_a_bad_folder_ends_in_exit_code_2_and_one_line(call, task, files, place, tmp_path):
    (tmp_path / "data").mkdir()
    for name, content in files.items():
        (tmp_path / "data" / name).write_text(content)
    code, out, err = call("run", task, "--train", "data", "--validation", "data", "--allow-leakage")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("error: ")
    assert place in err
