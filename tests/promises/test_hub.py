"""A model that was pushed answers the same in somebody else's process, and nothing else left this machine.

The server is tests/hub_server: it speaks the Hub's protocol, and is not the Hub.
"""

from __future__ import annotations

import ast
import errno
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, constants

import nlp_transfer as nt
from nlp_transfer.hub import pull
from nlp_transfer.hub.card import hub_data
from nlp_transfer.hub.leaks import home_pattern, refuse_leaks, without_folders
from nlp_transfer.hub.markdown import block, code, plain
from nlp_transfer.hub.patience import persistently
from tests.hub_server.checked import create, sound
from tests.hub_server.faults import Fault
from tests.processes import PROJECT, environment, nlp_transfer
from tests.promises.test_command_line import FAST

pytestmark = pytest.mark.enable_socket  # the loopback only
REPO, BASE = "alice/mood", "alice/tiny-bert"
TEXTS = ["a great film", "awful, just awful"]
TOKEN = "hf_" + "Aq3x" * 9
SENT = {
    "README.md",
    "adapter_config.json",
    "adapter_model.safetensors",
    "manifest.json",
    "curves.png",
    "confusion.png",
}


@pytest.fixture(scope="module")
def run_dir(checkpoint, tsv, tmp_path_factory) -> Path:
    """A finished run, with what nobody should get lying in it."""
    folder = tmp_path_factory.mktemp("runs") / "reviews"
    done = nlp_transfer(
        "run", "text_classification", "--train", tsv, "--checkpoint", checkpoint, "--run-dir", folder, *FAST
    )
    assert done.returncode == 0, done.stderr
    for place in (folder, folder / "model"):
        (place / ".env").write_text(f"HF_TOKEN={TOKEN}")
        (place / "data.csv").write_text("canary,canary\n")
        (place / "optimizer.safetensors").write_bytes(b"canary")
        (place / "notes.txt").write_text(f"canary in {Path.home()}/notes")
    return folder


@pytest.fixture
def tell(tmp_path):
    """Run the command as a user of this hub, with an empty cache each time unless ``home`` names one."""
    number = 0

    def run(hub, *words, token="hf_alice_write", home=None, **variables):
        nonlocal number
        number += 1
        own = hub.client_environment(home or tmp_path / f"home-{number}", token) | variables
        return subprocess.run(
            [sys.executable, *(["-m", "nlp_transfer", *map(str, words)] if words[0] != "-c" else words)],
            check=False,
            capture_output=True,
            text=True,
            env=environment() | own,
            timeout=120,
            cwd=tmp_path,
        )

    return run


@contextmanager
def opened(root, checkpoint, **modes):
    """A hub that has the base as well."""
    with sound(root, **modes) as hub:
        assert create(hub, BASE.partition("/")[2]) == 200
        files = {path.name: path.read_bytes() for path in Path(checkpoint).iterdir() if path.is_file()}
        files["README.md"] = b"---\nlicense: bsd-3-clause\n---\n"
        hub.move_branch(BASE, files=files)
        yield hub


def blocks(card: str) -> list[str]:
    return re.findall(r"```python\n(.*?)\n```", card, re.DOTALL)


def answers(done) -> list[dict]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("xet", "https"),
    [
        pytest.param(True, False, id="xet, http"),
        pytest.param(False, True, id="lfs, https", marks=pytest.mark.slow),
        pytest.param(True, True, id="xet, https", marks=pytest.mark.slow),
        pytest.param(False, False, id="lfs, http", marks=pytest.mark.slow),
    ],
)
def test_what_was_pushed_answers_the_same_elsewhere(run_dir, checkpoint, tell, tmp_path, xet, https):
    with opened(tmp_path / "hub", checkpoint, xet=xet, https=https) as hub:
        pushed = tell(hub, "push", run_dir, REPO, "--base-model", BASE, "--license", "mit", "--tag", "v1")
        assert pushed.returncode == 0, pushed.stderr
        assert pushed.stdout.strip() == hub.commits(REPO)[0]
        assert hub.files(REPO).keys() == SENT | {".gitattributes"}
        assert not [request for request in hub.requests if b"canary" in request.body or TOKEN.encode() in request.body]
        for place in (Path.home(), run_dir, Path(checkpoint)):
            assert not [request for request in hub.requests if str(place).encode() in request.body]
        here = answers(nlp_transfer("predict", run_dir / "model", *TEXTS))
        there = answers(tell(hub, "predict", REPO, *TEXTS))
        assert there == here
        assert answers(tell(hub, "predict", f"{REPO}@v1", TEXTS[0])) == here[:1]
        check_card(hub.files(REPO)["README.md"].decode(), tell, hub, here)


def check_card(card, tell, hub, here):
    """It holds no placeholder, its metadata are read by the Hub's own library, and its snippets run as they stand."""
    assert not re.search(r"\[More Information Needed\]|to be filled|\bNone\b", card)
    data = ModelCard(card).data
    assert (data.license, data.base_model, data.library_name, data.base_model_relation) == (
        "mit",
        BASE,
        "peft",
        "adapter",
    )
    commit = hub.commits(BASE)[0]
    assert json.loads(hub.files(REPO)["manifest.json"])["checkpoint"]["revision"] == commit
    assert f"(https://huggingface.co/{BASE}/tree/{commit}), is under bsd-3-clause." in card
    validated = tell(hub, "-c", f"from huggingface_hub import ModelCard; ModelCard.load({REPO!r}).validate()")
    assert validated.returncode == 0, validated.stderr
    assert (data.pipeline_tag, data.model_name) == ("text-classification", "mood")
    metrics = {(result.metric_type, result.metric_name) for result in data.eval_results}
    assert metrics == {("accuracy", "Accuracy"), ("f1", "Macro F1"), ("f1", "Weighted F1")}
    for words in ("## Limits", "## Data", "sha256", "## How it was made", "nlp-transfer run", "examples", "![Curves]"):
        assert words in card
    ours, plain = blocks(card)
    text = json.loads(re.search(r"predict\((\".*\")\)", ours)[1])
    told = tell(hub, "-c", ours)
    assert told.returncode == 0, told.stderr
    plain_told = tell(hub, "-c", plain)
    assert plain_told.returncode == 0, plain_told.stderr
    found = ast.literal_eval(plain_told.stdout)
    expected = answers(tell(hub, "predict", REPO, text))[0]["probabilities"]
    assert found == pytest.approx(expected, abs=1e-5)


FAULTS = {
    "once 5xx": [Fault("status", r"/commit/main$", "POST", 503)],
    "too many requests": [Fault("status", r"/commit/main$", "POST", 429, headers={"Retry-After": "1"})],
    "reset": [Fault("reset", r"/commit/main$", "POST")],
    "an answer cut short": [Fault("truncated", r"/commit/main$", "POST")],
    "a lost answer": [Fault("lost_answer", r"/commit/main$", "POST")],
    "a lost answer on making it": [Fault("lost_answer", r"/api/repos/create$", "POST")],
    "a stale parent": [Fault("status", r"/commit/main$", "POST", 412, message="stale")],
    "an upload that fails": [Fault("status", r"/_storage/|/_cas/.*/xorbs/", "PUT|POST", 502)] * 6,
}


QUICK = ("a lost answer", False)
CASES = [
    pytest.param(kind, xet, marks=[] if (kind, xet) == QUICK else pytest.mark.slow)
    for kind in FAULTS
    for xet in (False, True)
]


@pytest.mark.parametrize(("kind", "xet"), CASES)
def test_a_push_outlasts_what_passes_and_makes_one_commit(run_dir, checkpoint, tell, tmp_path, kind, xet):
    with opened(tmp_path / "hub", checkpoint, xet=xet) as hub:
        hub.faults.extend(FAULTS[kind])
        home = tmp_path / "home"
        pushed = tell(hub, "push", run_dir, REPO, "--base-model", BASE, home=home)
        assert pushed.returncode == 0, pushed.stderr
        assert re.search("trying again in|Retrying in", pushed.stderr)  # ours, or the client's own
        assert len(hub.commits(REPO)) == 2  # the first is the Hub's own
        assert hub.files(REPO).keys() == SENT | {".gitattributes"}
        again = tell(hub, "push", run_dir, REPO, "--base-model", BASE, home=home)
        assert (again.returncode, again.stdout) == (0, pushed.stdout)
        assert len(hub.commits(REPO)) == 2


@pytest.mark.slow
@pytest.mark.parametrize("xet", [False, True], ids=["lfs", "xet"])
def test_a_push_outlasts_a_server_that_is_away_and_somebody_elses_commit(run_dir, checkpoint, tell, tmp_path, xet):
    with opened(tmp_path / "hub", checkpoint, xet=xet) as hub:
        back = hub.down(20)
        pushed = tell(hub, "push", run_dir, REPO, "--base-model", BASE)
        back.join()
        assert pushed.returncode == 0, pushed.stderr
        hub.move_branch(REPO)
        again = tell(hub, "push", run_dir, REPO, "--base-model", BASE)
        assert again.returncode == 0, again.stderr
        assert "elsewhere.txt" in hub.files(REPO)
        assert len(hub.commits(REPO)) == 3


@pytest.mark.slow
@pytest.mark.parametrize("xet", [False, True], ids=["lfs", "xet"])
def test_a_push_outlasts_silence(run_dir, checkpoint, tell, tmp_path, xet):
    with opened(tmp_path / "hub", checkpoint, xet=xet) as hub:
        hub.faults.append(Fault("silence", r"/commit/main$", "POST", seconds=60))
        program = f"import nlp_transfer as nt; nt.push({str(run_dir)!r}, {REPO!r}, base_model={BASE!r}, patience=8)"
        pushed = tell(hub, "-c", program)
        assert pushed.returncode == 0, pushed.stderr
        assert "no answer within" in pushed.stderr
        assert len(hub.commits(REPO)) == 2


@pytest.mark.slow
def test_a_merged_model_is_read_by_a_pipeline(run_dir, checkpoint, tell, tmp_path):
    merged = nt.merge([run_dir / "model"], tmp_path / "merged")
    here = nt.load(merged).predict(TEXTS[0])
    with opened(tmp_path / "hub", checkpoint, xet=False) as hub:
        pushed = tell(hub, "push", merged, REPO)
        assert pushed.returncode == 0, pushed.stderr
        program = f"import transformers; print(transformers.pipeline('text-classification', {REPO!r})({TEXTS[0]!r}))"
        told = tell(hub, "-c", program)
        assert told.returncode == 0, told.stderr
        (found,) = ast.literal_eval(told.stdout)
        assert found == {"label": here.label, "score": pytest.approx(here.probability, abs=1e-5)}
        ours, plain = blocks(hub.files(REPO)["README.md"].decode())
        for snippet in (ours, plain):
            done = tell(hub, "-c", snippet)
            assert done.returncode == 0, done.stderr


REFUSALS = {
    "no token": ({"token": ""}, [], "There is no token for the Hub. Log in with `hf auth login`"),
    "a wrong token": ({"token": "hf_nobody"}, [], "does not take the token"),
    "a token that only reads": ({"token": "hf_alice_read"}, [], "The token needs the right to write there"),
    "somebody else's name": ({"token": "hf_bob_write"}, [], "The token needs the right to write there"),
    "a full quota": ({}, [Fault("quota", r"/commit/main$", "POST")], "storage limit"),
}


@pytest.mark.slow
@pytest.mark.parametrize("xet", [False, True], ids=["lfs", "xet"])
@pytest.mark.parametrize("https", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("kind", REFUSALS)
def test_a_push_that_cannot_work_says_so_in_a_line_and_leaves_nothing(
    run_dir, checkpoint, tell, tmp_path, kind, https, xet
):
    options, faults, reason = REFUSALS[kind]
    with opened(tmp_path / "hub", checkpoint, xet=xet, https=https) as hub:
        hub.faults.extend(faults)
        done = tell(hub, "push", run_dir, REPO, "--base-model", BASE, **options)
        assert done.returncode in (1, 2)
        assert re.search(reason, done.stderr), done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
        if kind == "a full quota":
            assert hub.files(REPO).keys() == {".gitattributes"}


@pytest.mark.slow
def test_a_base_or_licence_that_the_hub_does_not_know_is_refused(run_dir, checkpoint, tell, tmp_path):
    with opened(tmp_path / "hub", checkpoint, xet=False) as hub:
        for words, reason in (
            (["--base-model", "alice/tiny-burt"], "base alice/tiny-burt: there is no such repository"),
            (["--base-model", f"{BASE}@nowhere"], f"base {BASE}: the repository has no such revision"),
            (["--base-model", BASE, "--license", "my own"], 'the Hub refuses the card: "license" must be one of'),
        ):
            done = tell(hub, "push", run_dir, REPO, *words)
            assert (done.returncode, reason in done.stderr) == (2, True), done.stderr
            assert len(done.stderr.splitlines()) == 1, done.stderr
        assert not hub.storage.repository(REPO).exists or hub.files(REPO).keys() == {".gitattributes"}


@pytest.mark.slow
def test_a_card_that_was_edited_on_the_hub_stays_until_it_shall_not(run_dir, checkpoint, tell, tmp_path):
    with opened(tmp_path / "hub", checkpoint, xet=False) as hub:
        push = ["push", run_dir, REPO, "--base-model", BASE]
        assert tell(hub, *push).returncode == 0
        ours = hub.files(REPO)["README.md"]
        edited = ours.replace(b"## Limits", b"## Limits\r\n\r\nNot for medical texts.")
        hub.move_branch(REPO, files={"README.md": edited})
        for licence in ("mit", "apache-2.0"):
            done = tell(hub, *push, "--license", licence)
            assert (done.returncode, "--replace-card" in done.stderr) == (0, True), done.stderr
            assert hub.files(REPO)["README.md"] == edited
        assert len(hub.commits(REPO)) == 3
        hub.move_branch(REPO, files={"README.md": ours.replace(b"\n", b"\r\n")})  # a browser saved it
        assert tell(hub, *push, "--license", "mit").returncode == 0
        assert b"license: mit" in hub.files(REPO)["README.md"]
        hub.move_branch(REPO, files={"README.md": edited})
        assert tell(hub, *push, "--replace-card").returncode == 0
        assert hub.files(REPO)["README.md"] == ours


@pytest.mark.slow
def test_what_a_push_did_not_put_there_stays(run_dir, checkpoint, tell, tmp_path):
    """Of a model that is replaced by another kind nothing is left; what people added is not touched."""
    theirs = {"config.yaml": b"a: 1", "docs/README.md": b"# By hand", "model.onnx": b"mine"}
    whole = nt.merge([run_dir / "model"], tmp_path / "whole")
    with opened(tmp_path / "hub", checkpoint, xet=False) as hub:
        assert tell(hub, "push", whole, REPO).returncode == 0
        assert "tokenizer.json" in hub.files(REPO)
        hub.move_branch(REPO, files=theirs)
        assert tell(hub, "push", run_dir, REPO, "--base-model", BASE).returncode == 0
        assert hub.files(REPO).keys() == SENT | theirs.keys() | {".gitattributes"}


@pytest.mark.slow
def test_what_was_pulled_and_is_pushed_again_costs_nothing(run_dir, checkpoint, tell, tmp_path):
    with opened(tmp_path / "hub", checkpoint, xet=False) as hub:
        push = ["push", run_dir, REPO, "--base-model", BASE]
        assert tell(hub, *push, "--license", "mit", "--tag", "v1").returncode == 0
        before = hub.files(REPO)
        assert tell(hub, "pull", REPO, "copy").returncode == 0
        again = tell(hub, "push", "copy", REPO)
        assert again.returncode == 0, again.stderr
        assert hub.files(REPO) == before
        hub.move_branch(REPO)
        same = tell(hub, *push, "--tag", "v1")  # the licence is that of the card there
        assert same.returncode == 0, same.stderr
        assert hub.files(REPO)["README.md"] == before["README.md"]
        shutil.copytree(run_dir, tmp_path / "other")
        model = tmp_path / "other" / "model"
        raw = json.loads((model / "manifest.json").read_text())
        (model / "manifest.json").write_text(json.dumps(raw | {"max_tokens": 10}))
        commits = len(hub.commits(REPO))
        taken = tell(hub, "push", tmp_path / "other", REPO, "--base-model", BASE, "--tag", "v1")
        assert (taken.returncode, "has a tag 'v1' already" in taken.stderr) == (2, True)
        assert len(hub.commits(REPO)) == commits


@pytest.mark.slow
def test_a_failed_pull_leaves_what_was_pulled_before(run_dir, checkpoint, tell, tmp_path):
    with opened(tmp_path / "hub", checkpoint, xet=False) as hub:
        assert tell(hub, "push", run_dir, REPO, "--base-model", BASE).returncode == 0
        home = tmp_path / "home"
        assert tell(hub, "predict", REPO, TEXTS[0], home=home).returncode == 0
        hub.move_branch(REPO, files={"manifest.json": b"{}"})
        assert tell(hub, "pull", REPO, home=home).returncode == 2
        offline = tell(hub, "predict", REPO, TEXTS[0], home=home, HF_HUB_OFFLINE="1")
        assert offline.returncode == 0, offline.stderr


@pytest.mark.slow
def test_names_that_are_patterns_bring_nothing_else(run_dir, checkpoint, tell, tmp_path):
    with opened(tmp_path / "hub", checkpoint, xet=False) as hub:
        assert tell(hub, "push", run_dir, REPO, "--base-model", BASE).returncode == 0
        raw = json.loads(hub.files(REPO)["manifest.json"])
        raw["sha256"]["*"] = hashlib.sha256(b"star").hexdigest()
        added = {"*": b"star", "bomb.txt": b"large", "dir/evil.txt": b"evil"}
        hub.move_branch(REPO, files={"manifest.json": json.dumps(raw).encode(), **added})
        pulled = tell(hub, "pull", REPO, "copy")
        assert pulled.returncode == 0, pulled.stderr
        assert {path.name for path in (tmp_path / "copy").iterdir()} == SENT | {"*"}


@pytest.mark.slow
def test_another_kind_of_model_is_not_pushed_over(run_dir, checkpoint, tell, tmp_path):
    with opened(tmp_path / "hub", checkpoint, xet=False) as hub:
        create(hub, "other")
        for name in ("model.safetensors", "pytorch_model.bin"):
            hub.move_branch("alice/other", files={name: b"weights"})
            done = tell(hub, "push", run_dir, "alice/other", "--base-model", BASE, "--public")
            assert (done.returncode, f"holds {name} of another kind of model" in done.stderr) == (2, True), done.stderr


@pytest.mark.slow
def test_models_on_the_hub_are_merged_and_scored_by_their_names(run_dir, checkpoint, tsv, tell, tmp_path):
    with opened(tmp_path / "hub", checkpoint, xet=False) as hub:
        assert tell(hub, "push", run_dir, REPO, "--base-model", BASE).returncode == 0
        for words in (["merge", "whole", REPO], ["evaluate", REPO, tsv]):
            done = tell(hub, *words)
            assert done.returncode == 0, done.stderr
            assert "Fetching" not in done.stderr


@pytest.mark.slow
def test_a_private_base_is_not_told_of_in_public(run_dir, checkpoint, tell, tmp_path):
    with opened(tmp_path / "hub", checkpoint, xet=False) as hub:
        hub.make_private(BASE)
        done = tell(hub, "push", run_dir, REPO, "--base-model", BASE, "--public")
        assert (done.returncode, "is private, and a public card" in done.stderr) == (2, True)


@pytest.mark.slow
def test_the_token_of_a_login_is_used_and_never_told(run_dir, checkpoint, tell, tmp_path):
    with opened(tmp_path / "hub", checkpoint, xet=False, https=True) as hub:
        home = tmp_path / "home"
        words = ["hf", "auth", "login", "--token", "hf_alice_write"]
        program = f"import sys; from huggingface_hub.cli.hf import main; sys.argv = {words}; main()"
        logged_in = tell(hub, "-c", program, token="", home=home)
        assert logged_in.returncode == 0, logged_in.stderr
        pushed = tell(hub, "push", run_dir, REPO, "--base-model", BASE, token="", home=home)
        assert pushed.returncode == 0, pushed.stderr
        pulled = tell(hub, "pull", REPO, token="", home=home)
        assert pulled.returncode == 0, pulled.stderr
        told = pushed.stdout + pushed.stderr + pulled.stdout + pulled.stderr
        assert "hf_alice_write" not in told
        assert not [path for path in Path(pulled.stdout.strip()).iterdir() if b"hf_alice" in path.read_bytes()]


@pytest.mark.slow
def test_what_is_public_is_pushed_to_only_if_asked_for(run_dir, checkpoint, tell, tmp_path):
    with opened(tmp_path / "hub", checkpoint, xet=False) as hub:
        create(hub, "mood")
        done = tell(hub, "push", run_dir, REPO, "--base-model", BASE)
        assert (done.returncode, "everybody sees what is pushed. Pass --public" in done.stderr) == (2, True)
        assert tell(hub, "push", run_dir, REPO, "--base-model", BASE, "--public").returncode == 0
        stranger = tell(hub, "pull", REPO, token="")
        assert stranger.returncode == 0, stranger.stderr
        hub.make_private(REPO)
        done = tell(hub, "push", run_dir, REPO, "--base-model", BASE, "--public")
        assert f"{REPO} is private and stays so" in done.stderr


@pytest.mark.slow
def test_branches_and_pull_requests_get_it_once(run_dir, checkpoint, tell, tmp_path):
    with opened(tmp_path / "hub", checkpoint, xet=False) as hub:
        for _ in range(2):
            done = tell(hub, "push", run_dir, REPO, "--base-model", BASE, "--revision", "try/one")
            assert done.returncode == 0, done.stderr
        assert hub.files(REPO).keys() == {".gitattributes"}
        assert hub.files(REPO, "try/one").keys() == SENT | {".gitattributes"}
        for _ in range(2):
            done = tell(hub, "push", run_dir, REPO, "--base-model", BASE, "--pull-request")
            assert done.returncode == 0, done.stderr
            told = r"Pull request 1 (is open|holds it already): http.*/alice/mood/discussions/1 "
            assert re.search(told, done.stderr)
        assert hub.files(REPO).keys() == {".gitattributes"}
        assert hub.files(REPO, "refs/pr/1").keys() == SENT | {".gitattributes"}
        assert not (hub.repository(REPO).folder / "refs" / "pr" / "2").exists()
        hub.move_branch(REPO, files={"README.md": b"# By hand"})
        for _ in range(2):
            done = tell(hub, "push", run_dir, REPO, "--base-model", BASE, "--pull-request", "--license", "mit")
            assert done.returncode == 0, done.stderr
        assert not (hub.repository(REPO).folder / "refs" / "pr" / "2").exists()  # the card stays, so it is the same


@pytest.mark.slow
@pytest.mark.parametrize("xet", [False, True], ids=["lfs", "xet"])
def test_a_byte_that_came_changed_is_seen_and_not_kept(run_dir, checkpoint, tell, tmp_path, xet):
    with opened(tmp_path / "hub", checkpoint, xet=xet) as hub:
        assert tell(hub, "push", run_dir, REPO, "--base-model", BASE).returncode == 0
        hub.corrupt(REPO, "adapter_model.safetensors")
        home = tmp_path / "home"
        for _ in range(2):
            done = tell(hub, "pull", REPO, home=home)
            assert (done.returncode, "adapter_model.safetensors came changed" in done.stderr) == (2, True), done.stderr


def test_a_branch_that_moved_is_said_and_a_commit_stays(run_dir, checkpoint, tell, tmp_path):
    home = tmp_path / "home"
    with opened(tmp_path / "hub", checkpoint, xet=False) as hub:
        first = tell(hub, "push", run_dir, REPO, "--base-model", BASE).stdout.strip()
        assert "moved" not in tell(hub, "pull", REPO, home=home).stderr
        second = hub.move_branch(REPO)
        done = tell(hub, "pull", REPO, home=home)
        assert f"main has moved since it was last pulled, from {first[:12]} to {second[:12]}" in done.stderr
        pinned = tell(hub, "pull", REPO, "copy", "--revision", first, home=home)
        assert (pinned.returncode, pinned.stderr) == (0, "")
        assert not (tmp_path / "copy" / "elsewhere.txt").exists()
        offline = tell(hub, "pull", REPO, home=home, HF_HUB_OFFLINE="1")
        assert offline.stdout == done.stdout, offline.stderr
        nowhere = tell(hub, "pull", "alice/nothing", home=home, HF_HUB_OFFLINE="1")
        assert (nowhere.returncode, "is not in the cache" in nowhere.stderr) == (1, True)


@pytest.mark.slow
def test_what_cannot_be_pulled_is_a_line(run_dir, checkpoint, tell, tmp_path):
    with opened(tmp_path / "hub", checkpoint, xet=False) as hub:
        assert tell(hub, "push", run_dir, REPO, "--base-model", BASE).returncode == 0
        for words, token, reason in (
            (["pull", REPO], "", "no right to read it; log in with `hf auth login`"),
            (["pull", REPO], "hf_bob_write", "no right to read it; check the name"),
            (["pull", f"{REPO}@nowhere"], "hf_alice_write", "no such revision"),
            (["pull", BASE], "hf_alice_write", "it is no model of nlp-transfer"),
            (["pull", "no name"], "hf_alice_write", "is named 'user/name'"),
            (["predict", REPO, "text", "--checkpoint", "alice/nothing"], "hf_alice_write", "no right to read it"),
            (["predict", REPO, "text", "--checkpoint", "bob/nothing"], "", "log in with `hf auth login`"),
        ):
            done = tell(hub, *words, token=token)
            assert done.returncode in (1, 2)
            assert reason in done.stderr
            assert len(done.stderr.splitlines()) == 1, done.stderr


def test_a_cache_that_cannot_be_written_to_is_read(tmp_path, monkeypatch):
    """Mounted into a container, or used by many processes at once."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    written: list[Path] = []

    def refuse(path: Path, _: bytes) -> None:
        written.append(path)
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    with monkeypatch.context() as read_only:
        read_only.setattr(pull, "replace_file", refuse)
        pull.note_commit(REPO, "main", "a" * 40)
        assert len(written) == 1
    pull.note_commit(REPO, "main", "a" * 40)
    monkeypatch.setattr(pull, "replace_file", refuse)
    pull.note_commit(REPO, "main", "a" * 40)  # which it says already
    assert len(written) == 1


def test_a_full_disk_is_not_taken_for_a_want_of_connection():
    def pull_on_a_full_disk() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left"):
        persistently("pull", pull_on_a_full_disk, seconds=5, waits=())


def test_bytes_of_weights_that_look_like_an_address_are_none(tmp_path):
    for name in ("model.safetensors", "model.onnx", "notes.md"):
        (tmp_path / name).write_bytes(b"\0a://b\xff:cde@")
    refuse_leaks(tmp_path, [tmp_path / "model.safetensors", tmp_path / "model.onnx"])
    with pytest.raises(nt.ArtifactError, match=r"notes.md would publish a password"):
        refuse_leaks(tmp_path, [tmp_path / "notes.md"])


def test_a_dry_run_lists_files_and_card_and_asks_for_nothing_but_the_base(run_dir, call, tmp_path):
    code, out, err = call("push", run_dir, REPO, "--base-model", BASE, "--dry-run")
    assert code == 0, err
    assert {line.split()[-1] for line in out.splitlines() if " bytes  " in line} == SENT
    assert "pipeline_tag: text-classification" in out
    assert "The card lacks the commit and licence of the base" in err  # there is no network here


@pytest.mark.parametrize(
    "secret", [TOKEN, "AKIA" + "A1" * 8, "-----BEGIN RSA PRIVATE KEY-----", f"{Path.home()}/secret"]
)
def test_a_secret_in_what_would_be_sent_is_refused(run_dir, call, tmp_path, secret):
    folder = shutil.copytree(run_dir / "model", tmp_path / "model")
    raw = json.loads((folder / "manifest.json").read_text())
    raw["samples"][0]["text"] = f"my key is {secret}"
    (folder / "manifest.json").write_text(json.dumps(raw))
    code, _, err = call("push", folder, REPO, "--base-model", BASE, "--dry-run")
    assert (code, "so nothing was sent" in err) == (2, True)
    assert [line for line in err.splitlines() if line.startswith("error: ")] == err.splitlines()[-1:]


def test_a_base_that_nobody_else_has_is_asked_for(run_dir, call):
    code, _, err = call("push", run_dir, REPO, "--dry-run")
    assert (code, "Pass --base-model" in err) == (2, True)


@pytest.mark.parametrize("words", [["--revision", "a b"], ["--tag", "../x"], ["--revision", "-x"], ["--tag", "v.lock"]])
def test_branches_and_tags_that_git_does_not_take_are_refused(run_dir, call, words):
    flag, name = words
    code_, _, err = call("push", run_dir, REPO, "--dry-run", f"{flag}={name}")
    assert (code_, "cannot be the name of a branch or tag" in err) == (2, True), err


def test_a_pull_request_is_no_place_for_a_tag(run_dir, call):
    code_, _, err = call("push", run_dir, REPO, "--dry-run", "--pull-request", "--tag", "v1")
    assert (code_, "leave both out" in err) == (2, True), err


def test_the_base_itself_is_no_place_for_an_adapter(run_dir, call):
    code_, _, err = call("push", run_dir, BASE, "--base-model", BASE, "--dry-run")
    assert (code_, "is the base of" in err) == (2, True), err


def test_the_command_in_the_card_is_the_one_that_was_typed(run_dir, call):
    _, out, _ = call("push", run_dir, REPO, "--base-model", BASE, "--dry-run")
    assert "\nnlp-transfer run text_classification --train train.tsv --checkpoint alice/tiny-bert " in out


def test_names_that_are_none_are_refused(run_dir, call):
    for name in ("mood", "a/b/c", "a b/c"):
        code, _, err = call("push", run_dir, name, "--dry-run")
        assert (code, "must be named 'user/name'" in err) == (2, True)


@pytest.mark.parametrize(
    ("words", "published"),
    [
        ("--train /home/me/private/train.conll --run-dir=~/runs/x", "--train train.conll --run-dir=x"),
        ("--train ../clients/acme/patients.tsv --run-dir runs/merger", "--train patients.tsv --run-dir merger"),
        ("--train=/srv/acme/lang=en/train.csv --x a,/srv/secret/x", "--train=train.csv --x x"),
        ("--train /srv/acme/lang=en/train.csv --run-dir " + str(Path.home()) + "/", "--train train.csv --run-dir '~'"),
        ("--checkpoint ./private/bert", "--checkpoint org/base"),
        ("--checkpoint=file:///srv/secret/bert", "--checkpoint=org/base"),
        ("--train hub:org/name@main:small --training.seed 1", "--train hub:org/name@main:small --training.seed 1"),
        ("--train 'C:\\Users\\me\\train.csv'", "--train train.csv"),
    ],
)
def test_commands_lose_the_folders_of_this_machine(words, published):
    assert without_folders(f"nlp-transfer run ner {words}", "org/base") == f"nlp-transfer run ner {published}"


def test_a_command_that_cannot_be_read_is_left_out_but_for_its_name():
    assert without_folders("o'neil.py --train /srv/x.csv", "org/base") == "o'neil.py"


@pytest.mark.parametrize(
    ("home", "text", "fits"),
    [
        ("/root", '"/root"', True),
        ("/root", "cd /root now", True),
        ("/root", "/rooted/x", False),
        ("/root", "my/root/x", False),
        ("/home/jürgen", "in /home/j\\u00fcrgen/x", True),
        ("/", "a / b", False),
    ],
)
def test_the_home_is_found_in_every_spelling(home, text, fits):
    assert bool(re.search(home_pattern(Path(home)), text.encode())) == fits


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a`b", "`` a`b ``"), ("plain", "`plain`"), ("two\nlines", "`two lines`")],
)
def test_names_of_others_stay_names_in_a_card(text, shown):
    assert code(text) == shown


def test_blocks_of_a_card_end_where_they_should():
    assert block("echo '```'", "sh") == "````sh\necho '```'\n````"
    assert plain("<!-- [x](y) `z`") == r"\<!-- \[x\](y) \`z\`"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hub:org/name/train", "org/name"),
        ("hub:org/name@main:small/test", "org/name"),
        ("hub:name:config/test", "name"),
        ("train.csv", None),
    ],
)
def test_data_sets_of_the_hub_are_named_as_the_hub_does(name, expected):
    assert hub_data(name) == expected


def test_a_revision_is_named_once(run_dir):
    with pytest.raises(nt.ConfigError, match="names a revision already"):
        nt.load("alice/mood@v1", revision="v2")


def test_no_text_of_the_data_goes_where_none_shall(run_dir, call):
    texts = [sample["text"] for sample in json.loads((run_dir / "model" / "manifest.json").read_text())["samples"]]
    for words, goes in (([], True), (["--no-examples"], False)):
        code_, out, err = call("push", run_dir, REPO, "--base-model", BASE, "--dry-run", *words)
        assert code_ == 0, err
        assert ("of the data among the examples (--no-examples: none)" in err) == goes
        assert any(text in out for text in texts) == goes


@pytest.mark.parametrize(
    "held",
    [
        {"bank.json": '{"accounts": []}', "thesis.txt": "years"},
        {"manifest.json": '{"name": "an app"}', "thesis.txt": "years"},
        {"manifest.json": '{"sha256": {}}', "thesis.txt": "years"},
    ],
)
def test_a_pull_replaces_models_and_nothing_else(held, tmp_path):
    for name, text in held.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(nt.NlpTransferError):
        nt.pull(REPO, tmp_path, overwrite=True)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == held


def test_a_path_that_is_misspelled_is_not_looked_for_on_the_hub(run_dir, call, tmp_path):
    shutil.copytree(run_dir, tmp_path / "runs" / "mood")
    code, _, err = call("predict", "runs/modo", "a text")
    assert (code, "runs/modo does not exist" in err) == (2, True)


def test_a_revision_of_a_folder_is_refused(run_dir):
    with pytest.raises(nt.ConfigError, match="belongs to a repository on the Hub"):
        nt.load(run_dir, revision="main")


@pytest.mark.slow
def test_the_page_on_publishing_runs_as_it_stands(run_dir, tell, tmp_path, checkpoint):
    """In the order of the page; only the names of user and base are put in."""
    page = (PROJECT / "docs" / "publishing.md").read_text("utf-8").replace(" me/", " alice/").replace('"me/', '"alice/')
    shutil.copytree(run_dir, tmp_path / "runs" / "text_classification")
    with opened(tmp_path / "hub", checkpoint, xet=False) as hub:
        base = ["--base-model", BASE]
        for language, block in re.findall(r"```(sh|python)\n(.*?)\n```", page, re.DOTALL):
            lines = [["-c", block]] if language == "python" else [shlex.split(line)[1:] for line in block.splitlines()]
            for words in lines:
                done = tell(hub, *words, *(base if words[0] == "push" else []))
                assert done.returncode == 0, done.stderr
