"""Adapters of one base go to the Hub as one, and answer elsewhere as they do here."""

from __future__ import annotations

import ast
import json
import re
import shutil

import pytest
from huggingface_hub import ModelCard

import nlp_transfer as nt
from tests.adapters_at_random import make_adapter
from tests.promises.test_hub import BASE, blocks, opened, run_dir, tell  # noqa: F401 - fixtures

pytestmark = pytest.mark.enable_socket  # the loopback only
REPO = "alice/desk"
REQUESTS = [("mood", "a great film"), ("places", "Anna lives in Rome"), ("topics", "awful, just awful")]
ADAPTER = {"README.md", "adapter_config.json", "adapter_model.safetensors", "manifest.json"}
SENT = {
    ".gitattributes",
    "README.md",
    "bank.json",
    *(f"mood/{name}" for name in ADAPTER | {"curves.png", "confusion.png"}),
    *(f"places/{name}" for name in ADAPTER),
    *(f"topics/{name}" for name in ADAPTER),
}


@pytest.fixture
def desk(run_dir, checkpoint, tmp_path):  # noqa: F811
    """A folder of a run and two models, with what nobody should get lying in it."""
    folder = tmp_path / "desk"
    shutil.copytree(run_dir, folder / "mood")
    make_adapter(checkpoint, folder / "places", 1)
    make_adapter(checkpoint, folder / "topics", 2)
    (folder / "notes").mkdir()
    for place in (folder, folder / "notes", folder / "places"):
        (place / ".env").write_text("canary")
    return folder


def asked(model) -> str:
    return f"import nlp_transfer as nt; print(nt.AdapterBank.load({model!r}).predict({REQUESTS!r}))"


@pytest.mark.parametrize("xet", [pytest.param(False, id="lfs"), pytest.param(True, id="xet", marks=pytest.mark.slow)])
def test_a_bank_answers_the_same_elsewhere(desk, checkpoint, tell, tmp_path, xet):  # noqa: F811
    with opened(tmp_path / "hub", checkpoint, xet=xet) as hub:
        pushed = tell(hub, "push", desk, REPO, "--base-model", BASE, "--license", "mit")
        assert pushed.returncode == 0, pushed.stderr
        assert "left out, as they hold no saved model: 'notes'" in pushed.stderr
        assert hub.files(REPO).keys() == SENT
        assert not [request for request in hub.requests if b"canary" in request.body]
        there = tell(hub, "-c", asked(REPO))
        assert there.returncode == 0, there.stderr
        here = nt.AdapterBank.load({name: desk / name for name, _ in REQUESTS}).predict(REQUESTS)
        assert there.stdout == f"{here}\n"
        refused = tell(hub, "predict", REPO, "a text")
        assert (refused.returncode, "is a bank of 'mood', 'places', 'topics'" in refused.stderr) == (2, True)
        if xet:  # once is enough, and takes a process for each snippet
            check_cards(hub, tell)


def check_cards(hub, tell):  # noqa: F811
    """Of the whole, and of each adapter: valid, complete, with snippets that run as they stand."""
    card = hub.files(REPO)["README.md"].decode()
    data = ModelCard(card).data
    assert (data.base_model, data.library_name, data.license, data.pipeline_tag) == (BASE, "peft", "mit", None)
    assert {"adapter-bank", "lora"} <= set(data.tags)
    assert [name for name, _ in REQUESTS if f"[{name}]({name}/README.md)" in card] == ["mood", "places", "topics"]
    for name in ("README.md", "mood/README.md", "places/README.md"):
        text = hub.files(REPO)[name].decode()
        assert not re.search(r"\[More Information Needed\]|\bNone\b", text)
        for snippet in blocks(text):
            done = tell(hub, "-c", snippet)
            assert done.returncode == 0, done.stderr
    found = ast.literal_eval(tell(hub, "-c", blocks(hub.files(REPO)["mood/README.md"].decode())[1]).stdout)
    assert sum(found.values()) == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_a_bank_is_replaced_as_a_whole_and_only_if_it_differs(desk, checkpoint, tell, tmp_path):  # noqa: F811
    with opened(tmp_path / "hub", checkpoint, xet=False) as hub:
        for _ in range(2):
            assert tell(hub, "push", desk, REPO, "--base-model", BASE).returncode == 0
        assert len(hub.commits(REPO)) == 2
        edited = hub.files(REPO)["mood/README.md"] + b"By hand."
        hub.move_branch(REPO, files={"mood/README.md": edited, "docs/README.md": b"# By hand"})
        again = tell(hub, "push", desk, REPO, "--base-model", BASE)
        told = "mood/README.md of alice/desk was written or edited by a person"
        assert (again.returncode, told in again.stderr) == (0, True)
        assert (hub.files(REPO)["mood/README.md"], len(hub.commits(REPO))) == (edited, 3)
        shutil.rmtree(desk / "topics")
        assert tell(hub, "push", desk, REPO, "--base-model", BASE).returncode == 0
        own = {name for name in SENT if not name.startswith("topics/")}
        assert hub.files(REPO).keys() == own | {"docs/README.md"}
        assert tell(hub, "push", desk / "places", REPO, "--base-model", BASE).returncode == 0
        assert hub.files(REPO).keys() == ADAPTER | {".gitattributes", "docs/README.md", "mood/README.md"}


@pytest.mark.slow
def test_a_bank_is_pulled_whole_or_refused(desk, checkpoint, tell, tmp_path):  # noqa: F811
    with opened(tmp_path / "hub", checkpoint, xet=False) as hub:
        commit = tell(hub, "push", desk, REPO, "--base-model", BASE).stdout.strip()
        home = tmp_path / "home"
        for words in ([], ["--overwrite"]):
            pulled = tell(hub, "pull", REPO, "copy", *words, home=home)
            assert pulled.returncode == 0, pulled.stderr
        assert tell(hub, "-c", asked("copy"), home=home).returncode == 0
        offline = tell(hub, "-c", asked(REPO), home=home, HF_HUB_OFFLINE="1")
        assert offline.returncode == 0, offline.stderr
        listed = json.loads(hub.files(REPO)["bank.json"])
        listed["adapters"]["places"] = "0" * 64
        hub.move_branch(REPO, files={"bank.json": json.dumps(listed).encode()})
        done = tell(hub, "pull", REPO)
        assert (done.returncode, "is not the one that bank.json lists" in done.stderr) == (2, True)
        hub.corrupt(REPO, "places/adapter_model.safetensors")
        done = tell(hub, "pull", f"{REPO}@{commit}")
        assert (done.returncode, "places/adapter_model.safetensors came changed" in done.stderr) == (2, True)
        pinned = tell(hub, "-c", asked(f"{REPO}@{commit}"), home=home)
        assert pinned.returncode == 0, pinned.stderr


def test_what_a_bank_would_not_load_is_not_pushed_as_one(desk, checkpoint, call):
    make_adapter(checkpoint, desk / "odd", 3, use_dora=True)
    code, _, err = call("push", desk, REPO, "--base-model", BASE, "--dry-run")
    assert (code, "'odd' uses DoRA" in err) == (2, True), err


def test_adapters_of_two_bases_are_no_bank(desk, make_checkpoint, call):
    make_adapter(str(make_checkpoint("roberta")), desk / "others", 3)
    code, _, err = call("push", desk, REPO, "--base-model", BASE, "--dry-run")
    assert (code, "'others' was trained on another than 'mood'" in err) == (2, True), err


@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        ({"format": 2, "adapters": {"mood": "0"}}, "format 2 is unknown"),
        ({"format": 1, "adapters": {}}, "no list of 1 to 1000 adapters"),
        ({"format": 1, "adapters": {"../mood": "0"}}, "is damaged at '../mood'"),
        ({"format": 1, "adapters": {"mood": "0"}}, "is not the one that bank.json lists"),
        ({"format": 1, "adapters": {"film": "0"}}, "is not the one that bank.json lists"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(desk, listed, reason):
    (desk / "bank.json").write_text(json.dumps(listed))
    with pytest.raises(nt.ArtifactError, match=re.escape(reason)):
        nt.AdapterBank.load(desk)


def test_one_model_is_no_bank_and_a_bank_no_model(desk):
    with pytest.raises(nt.ConfigError, match="is no bank of adapters"):
        nt.AdapterBank.load(desk / "mood")
    with pytest.raises(nt.ConfigError, match="is a bank of"):
        nt.load(desk)
    with pytest.raises(nt.ConfigError, match="belongs to one repository"):
        nt.AdapterBank.load([desk / "mood"], revision="main")
    assert nt.AdapterBank.load(desk).names == ("mood", "places", "topics")
