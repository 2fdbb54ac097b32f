"""Memory that is free is what the container may still take, not what its host has."""

from __future__ import annotations

from pathlib import Path

import pytest

from nlp_transfer.training import free_memory as module
from nlp_transfer.training.free_memory import free_memory

GIB = 2**30


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """With 512 GiB free, and control groups of our own making."""

    def make(own_groups: str, groups: dict[str, dict[str, str]]) -> None:
        for folder, files in groups.items():
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                (tmp_path / folder / name).write_text(content)
        (tmp_path / "own").write_text(own_groups)

    monkeypatch.setattr(module, "MOUNTED", tmp_path)
    monkeypatch.setattr(module, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(module.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 512 * GIB}))
    return make


def second(limit: str | int, used: int, cached: int = 0) -> dict[str, str]:
    stat = f"anon 1\ninactive_file {cached}\n"
    return {"memory.max": f"{limit}\n", "memory.current": f"{used}\n", "memory.stat": stat}


def test_without_control_groups_it_is_what_the_machine_has(monkeypatch, machine):
    monkeypatch.setattr(module, "OWN_GROUPS", Path("/there/is/no/such/file"))
    assert free_memory() == 512 * GIB


def test_a_group_without_a_limit_limits_nothing(machine):
    machine("0::/\n", {".": second("max", 3 * GIB)})
    assert free_memory() == 512 * GIB


def test_files_that_the_kernel_keeps_count_as_free(machine):
    machine("0::/\n", {".": second(8 * GIB, 6 * GIB, cached=GIB)})
    assert free_memory() == 3 * GIB


def test_the_narrowest_of_the_groups_around_decides(machine):
    machine(
        "0::/jobs/7\n", {"jobs/7": second("max", GIB), "jobs": second(4 * GIB, 2 * GIB), ".": second(64 * GIB, GIB)}
    )
    assert free_memory() == 2 * GIB


def test_the_first_version_of_control_groups_is_read_too(machine):
    stat = f"inactive_file 0\ntotal_inactive_file {GIB}\n"
    files = {"memory.limit_in_bytes": f"{4 * GIB}", "memory.usage_in_bytes": f"{2 * GIB}", "memory.stat": stat}
    machine("5:cpu:/x\n4:memory:/of/the/host\n0::/\n", {"memory": files})
    assert free_memory() == 3 * GIB


def test_what_is_not_told_counts_as_used(machine):
    files = second(8 * GIB, 6 * GIB)
    del files["memory.stat"]
    machine("0::/\n", {".": files})
    assert free_memory() == 2 * GIB


@pytest.mark.parametrize("own_groups", ["", "\nnonsense\n0::/\n", "0::/../x\n", "7:memory\n"])
def test_lines_that_say_nothing_end_nothing(machine, own_groups):
    machine(own_groups, {})
    assert free_memory() == 512 * GIB


def test_a_group_that_holds_more_than_its_limit_has_nothing_left(machine):
    machine("0::/\n", {".": second(GIB, 2 * GIB)})
    assert free_memory() == 0
