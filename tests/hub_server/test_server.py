"""The server does what huggingface_hub expects of the Hub, and keeps what it is given."""

from __future__ import annotations

import hashlib
import json
import random
import struct
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.hub_server.app import Hub
from tests.hub_server.checked import ask, client, connect, create, sound
from tests.hub_server.chunk_store import chunks_of, decompress
from tests.hub_server.client import MODEL
from tests.hub_server.faults import Fault

pytestmark = pytest.mark.enable_socket  # the loopback only
WEIGHTS = "adapter_model.safetensors"
OVER = pytest.mark.parametrize("https", [False, True], ids=["http", "https"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's files: texts, an empty one, and large ones that Xet stores plainly, compressed and by byte groups."""
    made, numbers = tmp_path_factory.mktemp("source"), random.Random(0)
    (made / "nested folder").mkdir()
    contents = {
        "README.md": b"---\nlibrary_name: peft\n---\n# A model\n",
        "config.json": b"{}",
        "empty.txt": b"",
        "binary.dat": b"\0\1" * 1000,
        "nested folder/a b.txt": "Grüße\n".encode(),
        WEIGHTS: numbers.randbytes(300_000),
        "repeated.bin": b"the same again " * 20_000,
        "floats.npy": struct.pack("<50000f", *(1 + number / 50_000 for number in range(50_000))),
    }
    for name, content in contents.items():
        (made / name).write_bytes(content)
    return made


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and ".cache" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@OVER
@pytest.mark.parametrize("xet", [False, True], ids=["lfs", "xet"])
def test_what_is_uploaded_comes_back_and_an_unchanged_folder_makes_no_commit(
    tmp_path: Path, folder: Path, xet: bool, https: bool
) -> None:
    with sound(tmp_path, xet=xet, https=https) as hub:
        found = client(hub, "round_trip", folder, tmp_path / "back")
        back = contents(tmp_path / "back")
        assert hub.files(MODEL) == back
        assert b"\nbinary.dat filter=lfs " in back.pop(".gitattributes")
        assert back == contents(folder)
        first, again, head = found["commits"]
        assert first == again == head == hub.commits(MODEL)[0]
        assert len(hub.commits(MODEL)) == 2
        assert (found["user"], found["library"]) == ("alice", "peft")
        assert found["sha256"] == hashlib.sha256(back[WEIGHTS]).hexdigest()
        assert any("/_cas/v1/shards" in request.path for request in hub.requests) == xet
        assert any(request.method == "PUT" and request.body == back[WEIGHTS] for request in hub.requests) != xet
        storage = [request for request in hub.requests if request.path.startswith("/_storage")]
        assert storage
        assert not any("authorization" in request.headers for request in storage)


@OVER
def test_who_may_not_see_or_write_a_repository_is_refused_as_on_the_hub(tmp_path: Path, https: bool) -> None:
    with sound(tmp_path, xet=False, https=https) as hub:
        assert client(hub, "access", tmp_path / "none") == {
            "stranger looks": "RepositoryNotFoundError 401",
            "stranger downloads": "RepositoryNotFoundError 401",
            "other looks": "RepositoryNotFoundError 404",
            "unknown token": "HfHubHTTPError 401",
            "reader looks": "no error",
            "reader uploads": "HfHubHTTPError 403",
            "reader creates": "HfHubHTTPError 403",
            "other uploads": "HfHubHTTPError 403",
            "other proposes": "no error",
            "other checks writing": "HfHubHTTPError 403",
            "member creates": "no error",
            "create again": "HfHubHTTPError 409",
            "create again, fine": "no error",
            "made private": "RepositoryNotFoundError 401",
            "deleted": "RepositoryNotFoundError 404",
        }


@pytest.mark.parametrize("xet", [False, True], ids=["lfs", "xet"])
def test_branches_tags_and_pull_requests(tmp_path: Path, folder: Path, xet: bool) -> None:
    with sound(tmp_path, xet=xet) as hub:
        found = client(hub, "references", folder)
        assert found.pop("proposed") == sorted([".gitattributes", *contents(folder)])
        assert found == {
            "branches": {"main": False, "try/one": True},
            "tags": {"v1": True},
            "pull requests": {"refs/pr/1": True},
            "details": "Proposed",
            "tagged": "one",
            "main": [".gitattributes", "main.txt"],
            "paths": ["main.txt"],
            "titles": ["Upload main.txt with huggingface_hub", "initial commit"],
            "missing file": "RemoteEntryNotFoundError 404",
            "missing revision": "RevisionNotFoundError 404",
            "same branch": "HfHubHTTPError 409",
            "stale parent": "HfHubHTTPError 412",
            "broken card": "ValueError",
        }
        assert len(hub.commits(MODEL, "refs/pr/1")) >= 2


@pytest.mark.parametrize("xet", [False, True], ids=["lfs", "xet"])
def test_a_corrupted_file_arrives_whole_in_size_and_with_another_hash(tmp_path: Path, folder: Path, xet: bool) -> None:
    with sound(tmp_path, xet=xet) as hub:
        assert client(hub, "upload", folder) == {"upload": "no error"}
        stored = {name: hashlib.sha256(content).hexdigest() for name, content in hub.files(MODEL).items()}
        wrong = ("config.json", "repeated.bin", WEIGHTS)
        for name in wrong:
            hub.corrupt(MODEL, name)
        arrived = client(hub, "download", tmp_path / "back")
        assert {name for name, sha256 in arrived.items() if sha256 != stored[name]} == set(wrong)
        assert (tmp_path / "back" / WEIGHTS).stat().st_size == 300_000


def reconstructed(hub: Hub, path: str, first: int, last: int) -> bytes:
    """These bytes of a file by way of its chunks, as the client of Xet gets them."""
    response, _ = ask(hub, "HEAD", f"/{MODEL}/resolve/main/{path}")
    _, answer = ask(hub, "GET", f"/api/models/{MODEL}/xet-read-token/main")
    token, place = json.loads(answer), f"/_cas/v2/reconstructions/{response.headers['X-Xet-Hash']}"
    authorization, wanted = f"Bearer {token['accessToken']}", f"bytes={first}-{last}"
    plan = json.loads(ask(hub, "GET", place, Authorization=authorization, Range=wanted)[1])
    content = b""
    for term in plan["terms"]:
        xorb = hub.storage.chunks.xorb(term["hash"])
        chunks = chunks_of(xorb)[term["range"]["start"] : term["range"]["end"]]
        parts = [fetch["ranges"][0]["bytes"] for fetch in plan["xorbs"][term["hash"]]]
        assert any(part["start"] <= chunks[0].start and chunks[-1].end <= part["end"] + 1 for part in parts)
        content += b"".join(decompress(xorb, chunk) for chunk in chunks)
    return content[plan["offset_into_first_range"] :][: last - first + 1]


def test_parts_of_files_can_be_had_from_chunks_and_objects(tmp_path: Path, folder: Path) -> None:
    with sound(tmp_path) as hub:
        client(hub, "upload", folder)
        for name in ("repeated.bin", "floats.npy", WEIGHTS):
            whole = (folder / name).read_bytes()
            for first, last in ((0, 0), (1, 99), (70_000, 190_000), (150_000, len(whole) - 1)):
                assert reconstructed(hub, name, first, last) == whole[first : last + 1]
            response, _ = ask(hub, "GET", f"/{MODEL}/resolve/main/{name}")
            connection = connect(hub)
            assert response.headers["X-Linked-ETag"] == f'"{hashlib.sha256(whole).hexdigest()}"'
            place = urlsplit(response.headers["Location"]).path
            connection.request("GET", place, headers={"Range": "bytes=150000-"})
            assert connection.getresponse().read() == whole[150_000:]
            connection.close()


def test_a_full_storage_stops_an_upload_and_leaves_no_commit(tmp_path: Path, folder: Path) -> None:
    with sound(tmp_path, xet=False) as hub:
        hub.faults.append(Fault("quota", "/info/lfs/objects/batch"))
        assert client(hub, "upload", folder) == {"upload": "HfHubHTTPError 403"}
        assert len(hub.commits(MODEL)) == 1
        hub.faults.append(Fault("quota", "/commit/main"))
        assert client(hub, "upload", folder) == {"upload": "HfHubHTTPError 403"}
        assert (len(hub.commits(MODEL)), hub.faults) == (1, [])


def test_somebody_else_commits_or_hides_the_repository(tmp_path: Path) -> None:
    with sound(tmp_path) as hub:
        create(hub)
        moved = hub.move_branch(MODEL, files={"theirs.bin": b"theirs"})
        assert hub.commits(MODEL)[0] == moved
        assert hub.files(MODEL)["theirs.bin"] == b"theirs"
        hub.make_private(MODEL)
        for token, status in (("hf_alice_write", 200), ("hf_bob_write", 404)):
            response, _ = ask(hub, "GET", f"/api/models/{MODEL}", Authorization=f"Bearer {token}")
            assert response.status == status


UNREADABLE = [
    ("/api/repos/create", b"{"),
    ("/api/repos/create", b"[]"),
    ("/api/repos/create", b'{"name": "../up"}'),
    ("/api/validate-yaml", b"{}"),
    ("/api/models/alice/model/commit/main", b""),
    (
        "/api/models/alice/model/commit/main",
        b'{"key": "header", "value": {"summary": "a"}}\n{"key": "move", "value": 1}',
    ),
    ("/alice/model.git/info/lfs/objects/batch", b'{"operation": "download", "objects": []}'),
]


def test_what_cannot_be_read_is_a_bad_request(tmp_path: Path) -> None:
    with sound(tmp_path) as hub:
        create(hub)
        for path, body in UNREADABLE:
            assert ask(hub, "POST", path, body)[0].status == 400, body


def test_an_object_in_another_name_or_a_token_at_the_storage_is_refused(tmp_path: Path) -> None:
    with sound(tmp_path) as hub:
        create(hub)
        wanted = {"operation": "upload", "objects": [{"oid": "0" * 64, "size": 4}]}
        _, body = ask(hub, "POST", f"/{MODEL}.git/info/lfs/objects/batch", wanted)
        place = urlsplit(json.loads(body)["objects"][0]["actions"]["upload"]["href"])
        assert place.hostname == "localhost"
        connection = connect(hub)
        token = {"Authorization": "Bearer hf_alice_write"}
        for content, headers, reason in ((b"four", {}, "sha256"), (b"three", {}, "size"), (b"four", token, "token")):
            connection.request("PUT", place.path, content, headers)
            response = connection.getresponse()
            assert response.status == 400
            assert reason in json.loads(response.read())["error"]
        connection.close()
        assert not list(hub.storage.lfs.hashes())
