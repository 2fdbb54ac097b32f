"""The server fails when it is told to, in the way it is told to."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from pathlib import Path

import pytest

from tests.hub_server.checked import ask, connect, create, sound
from tests.hub_server.client import MODEL
from tests.hub_server.faults import Fault, Kind

pytestmark = pytest.mark.enable_socket  # the loopback only
WHOAMI = "/api/whoami-v2"
OVER = pytest.mark.parametrize("https", [False, True], ids=["http", "https"])


def ask_over(connection: http.client.HTTPConnection) -> int:
    connection.request("GET", "/api/agent-harnesses")
    response = connection.getresponse()
    response.read()
    return response.status


def test_the_first_matching_fault_answers_once_and_no_work_is_done(tmp_path: Path) -> None:
    with sound(tmp_path) as hub:
        late = {"Retry-After": "7"}
        hub.faults += [Fault("status", "/delete$"), Fault("status", "/create$", "POST", 429, headers=late)]
        response, body = ask(hub, "POST", "/api/repos/create", {"name": "model"})
        assert (response.status, response.headers["Retry-After"]) == (429, "7")
        assert "error" in json.loads(body)
        assert [fault.path for fault in hub.faults] == ["/delete$"]
        assert not hub.repository(MODEL).exists
        assert create(hub) == 200


@OVER
def test_connections_break_before_or_after_the_work(tmp_path: Path, https: bool) -> None:
    with sound(tmp_path, https=https) as hub:
        cases: list[tuple[Kind, bool]] = [("reset", False), ("lost_answer", True)]
        for kind, done in cases:
            hub.faults.append(Fault(kind, "/api/repos/create"))
            with pytest.raises((ConnectionError, ssl.SSLEOFError)):
                create(hub, kind)
            assert hub.repository(f"alice/{kind}").exists is done
        assert [(request.status, json.loads(request.body)["name"]) for request in hub.requests] == [
            (None, "reset"),
            (None, "lost_answer"),
        ]


@OVER
def test_an_answer_is_cut_short(tmp_path: Path, https: bool) -> None:
    with sound(tmp_path, https=https) as hub:
        _, whole = ask(hub, "GET", WHOAMI)
        for sent in (None, 0, 10):
            hub.faults.append(Fault("truncated", WHOAMI, sent=sent))
            with pytest.raises(http.client.IncompleteRead) as caught:
                ask(hub, "GET", WHOAMI)
            length = len(whole) // 2 if sent is None else sent
            assert caught.value.partial == whole[:length]


@OVER
def test_silence_lasts_as_long_as_it_is_told_to(tmp_path: Path, https: bool) -> None:
    with sound(tmp_path, https=https) as hub:
        hub.faults += [Fault("silence", "/create", seconds=0.5)] * 2
        begun = time.monotonic()
        with pytest.raises((ConnectionError, ssl.SSLEOFError)):
            create(hub)
        assert 0.5 <= time.monotonic() - begun < 3
        with pytest.raises(TimeoutError):
            ask(hub, "POST", "/api/repos/create", {"name": "model"}, timeout=0.2)
        assert not hub.repository(MODEL).exists
        assert create(hub) == 200


@OVER
def test_a_server_that_is_away_refuses_connections_and_comes_back_on_its_port(tmp_path: Path, https: bool) -> None:
    with sound(tmp_path, https=https) as hub:
        kept = connect(hub)
        assert ask_over(kept) == 200
        kept.auto_open = 0
        hub.stop_listening()
        with pytest.raises(ConnectionRefusedError):
            ask(hub, "GET", WHOAMI)
        with pytest.raises((OSError, http.client.HTTPException)):
            ask_over(kept)
        kept.close()
        hub.listen_again()
        assert ask(hub, "GET", WHOAMI)[0].status == 200
        back = hub.down(0.3)
        with pytest.raises(ConnectionRefusedError):
            ask(hub, "GET", WHOAMI)
        back.join()
        assert ask(hub, "GET", WHOAMI)[0].status == 200


def test_a_server_may_end_while_it_is_away_or_silent(tmp_path: Path) -> None:
    with sound(tmp_path / "away") as hub:
        hub.stop_listening()
    with sound(tmp_path / "silent") as hub:
        hub.faults.append(Fault("silence", WHOAMI, seconds=60))
        with pytest.raises(TimeoutError):
            ask(hub, "GET", WHOAMI, timeout=0.2)
