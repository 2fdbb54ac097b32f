"""A run that was stopped and went on ends in the same bits as one that was not: weights, optimizer and log."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.processes import FSDP2, NO_DEEPSPEED, ZERO, launch
from tests.promises import stopped_runs


def check(found: dict, log: Path) -> None:
    assert found["stopped"] == found["whole"]
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    ends = {line["epoch"]: line["step"] for line in lines if "validation" in line}
    (in_step, _), (end_step, end_epoch), (pending_step, pending_epoch) = (
        map(int, re.fullmatch(r"step-(\d+)-epoch-(\d+)", name).groups()) for name in found["stops"]
    )
    assert in_step not in ends.values()  # in the midst of an epoch
    assert end_step == ends[end_epoch]  # at its end, validated
    assert pending_step == ends[pending_epoch + 1]  # at its end, not yet validated


@pytest.mark.parametrize("case", stopped_runs.CASES)
def test_a_stopped_run_ends_as_the_undisturbed_one(case, checkpoint, request, tmp_path):
    settings = stopped_runs.CASES[case]
    corpus = request.getfixturevalue(settings.get("corpus", "tsv"))
    found = stopped_runs.compare(checkpoint, corpus, settings, tmp_path)
    check(found, tmp_path / "whole" / "log.jsonl")


@pytest.mark.multiprocess
@pytest.mark.parametrize(
    ("case", "variables"),
    [
        pytest.param("LoRA", {}, id="whole copies"),
        pytest.param("LoRA", FSDP2, id="FSDP2"),
        pytest.param("all weights", FSDP2, id="FSDP2, all weights", marks=pytest.mark.slow),
        pytest.param("the head alone", FSDP2, id="FSDP2, the head alone", marks=pytest.mark.slow),
        pytest.param("LoRA", ZERO, id="DeepSpeed", marks=NO_DEEPSPEED),
        pytest.param("all weights", ZERO, id="DeepSpeed, all weights", marks=[NO_DEEPSPEED, pytest.mark.slow]),
        pytest.param("steps left out", ZERO, id="DeepSpeed, steps left out", marks=[NO_DEEPSPEED, pytest.mark.slow]),
        pytest.param("accumulation", {}, id="accumulation", marks=pytest.mark.slow),
    ],
)
def test_so_does_a_run_of_two_processes_when_one_of_them_gets_the_signal(checkpoint, tsv, tmp_path, case, variables):
    script = Path(stopped_runs.__file__)
    launch(2, script, checkpoint, tsv, case, tmp_path, variables=variables)
    first, second = (json.loads((tmp_path / f"found-{process}.json").read_text()) for process in (0, 1))
    assert (first["processes"], second["processes"]) == (2, 2)
    check(first, tmp_path / "whole" / "log.jsonl")
    assert second["stopped"] == second["whole"]
    assert second["whole"]["model"] == first["whole"]["model"]
