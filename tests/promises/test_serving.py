"""The asynchronous front and the HTTP server: mixed loads are answered, overload is told so, a stop loses nothing."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

import nlp_transfer as nt
from nlp_transfer.commands.using import is_named
from nlp_transfer.inference.files import as_record
from nlp_transfer.inference.server import read_entry
from tests.adapters_at_random import make_adapter
from tests.corpus import REVIEWS, SENTENCES
from tests.processes import environment

TEXTS = [" ".join(words) for words, _ in SENTENCES[:5]] + [text for text, _ in REVIEWS[:5]]

SERVE = [sys.executable, "-m", "nlp_transfer", "serve"]


@pytest.fixture(scope="module")
def folders(checkpoint, tmp_path_factory):
    root = tmp_path_factory.mktemp("adapters")
    return {f"a{n}": make_adapter(checkpoint, root / f"a{n}", n) for n in range(4)}


@pytest.fixture(scope="module")
def alone(folders):
    """The answer to every request, as JSON has it."""
    predictors = {name: nt.load(folder) for name, folder in folders.items()}
    return {(name, text): as_record(predictors[name].predict(text)) for name in folders for text in TEXTS}


def is_close(found, wanted) -> bool:
    if isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(is_close(found[key], value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(is_close, found, wanted))
    return found == pytest.approx(wanted, abs=2e-4) if isinstance(wanted, float) else found == wanted


def test_requests_that_wait_together_are_answered_together(folders, alone):
    bank = nt.AdapterBank.load(folders)
    sizes = []
    predict = bank.predict

    def counted(requests, **options):
        sizes.append(len(requests))
        return predict(requests, **options)

    bank.predict = counted

    async def ask_all():
        async with nt.AsyncBank(bank, max_batch=16) as front:
            return await asyncio.gather(*(front.predict(*request) for request in alone))

    answers = asyncio.run(ask_all())
    assert all(is_close(as_record(found), wanted) for found, wanted in zip(answers, alone.values(), strict=True))
    assert max(sizes) == 16
    assert sum(sizes) == len(alone)


def test_an_error_reaches_the_one_who_asked_and_nobody_else(folders, alone):
    async def ask_both():
        async with nt.AsyncBank(nt.AdapterBank.load(folders)) as front:
            bad, good = front.predict("nobody", "a text"), front.predict("a0", TEXTS[0])
            return await asyncio.gather(bad, good, return_exceptions=True)

    bad, good = asyncio.run(ask_both())
    assert isinstance(bad, nt.ConfigError)
    assert is_close(as_record(good), alone["a0", TEXTS[0]])


def test_too_many_that_wait_are_refused_and_later_ones_answered(folders):
    async def ask_many():
        async with nt.AsyncBank(nt.AdapterBank.load(folders), max_waiting=8) as front:
            found = await asyncio.gather(*(front.predict("a0", TEXTS[0]) for _ in range(20)), return_exceptions=True)
            return found, await front.predict("a0", TEXTS[0])

    found, later = asyncio.run(ask_many())
    assert sum(isinstance(one, nt.BusyError) for one in found) == 12
    assert isinstance(later, nt.Classification)


def test_a_front_may_be_entered_again(folders):
    """As a host does that restarts an application."""
    front = nt.AsyncBank(nt.AdapterBank.load({"a0": folders["a0"]}))

    async def enter():
        async with front:
            return await front.predict("a0", TEXTS[0])

    assert asyncio.run(enter()) == asyncio.run(enter())


def test_limits_that_cannot_work_are_refused(folders):
    bank = nt.AdapterBank.load({"a0": folders["a0"]})
    for limits in ({"max_batch": 0}, {"max_waiting": 0}):
        with pytest.raises(nt.ConfigError, match="must be at least 1"):
            nt.AsyncBank(bank, **limits)

    async def ask():
        front = nt.AsyncBank(bank, max_waiting=2)
        with pytest.raises(nt.ConfigError, match="inside of 'async with'"):
            await front.predict("a0", "x")
        async with front:
            with pytest.raises(nt.ConfigError, match="At most 2 requests"):
                await front.predict_all([("a0", "x")] * 3)

    asyncio.run(ask())


def test_what_nobody_waits_for_is_not_computed(folders):
    bank, computed = nt.AdapterBank.load(folders), []
    predict = bank.predict

    def slow(requests, **options):
        computed.extend(requests)
        time.sleep(0.2)
        return predict(requests, **options)

    bank.predict = slow

    async def give_up():
        async with nt.AsyncBank(bank, max_batch=1) as front:
            first = asyncio.create_task(front.predict("a0", "first"))
            await asyncio.sleep(0.05)
            others = [asyncio.create_task(front.predict("a0", "other")) for _ in range(5)]
            await asyncio.sleep(0.01)
            for task in others:
                task.cancel()
            return await first

    assert isinstance(asyncio.run(give_up()), nt.Classification)
    assert computed == [("a0", "first")]


def test_what_nobody_waits_for_takes_no_place(folders):
    bank, go_on = nt.AdapterBank.load({"a0": folders["a0"]}), threading.Event()
    predict = bank.predict
    bank.predict = lambda requests, **options: (go_on.wait(60), predict(requests, **options))[1]

    async def give_up():
        async with nt.AsyncBank(bank, max_batch=1, max_waiting=3) as front:
            first = asyncio.create_task(front.predict("a0", "first"))
            await asyncio.sleep(0.05)
            others = [asyncio.create_task(front.predict("a0", "other")) for _ in range(3)]
            await asyncio.sleep(0.05)
            waiting = front.num_waiting
            for task in others:
                task.cancel()
            await asyncio.sleep(0.05)
            left = front.num_waiting
            later = asyncio.create_task(front.predict("a0", "later"))
            await asyncio.sleep(0.05)
            go_on.set()
            return waiting, left, await first, await later

    waiting, left, *answers = asyncio.run(give_up())
    assert (waiting, left) == (3, 0)
    assert all(isinstance(answer, nt.Classification) for answer in answers)


def test_who_no_longer_waits_for_the_end_takes_no_answers_away(folders):
    bank, go_on = nt.AdapterBank.load({"a0": folders["a0"]}), threading.Event()
    predict = bank.predict
    bank.predict = lambda requests, **options: (go_on.wait(60), predict(requests, **options))[1]

    async def leave_twice():
        front = await nt.AsyncBank(bank).__aenter__()
        asked = asyncio.create_task(front.predict("a0", "first"))
        await asyncio.sleep(0.05)
        leaving = asyncio.create_task(front.__aexit__(None, None, None))
        await asyncio.sleep(0.05)
        leaving.cancel()
        await asyncio.sleep(0.05)
        go_on.set()
        return await asyncio.wait_for(asked, 60)

    assert isinstance(asyncio.run(leave_twice()), nt.Classification)


def test_words_count_with_the_blanks_between_them():
    assert isinstance(read_entry({"adapter": "a", "text": ["", "", ""]}, 1), nt.DataError)
    assert read_entry({"adapter": "a", "text": ["", "", ""]}, 2) == ("a", ["", "", ""])
    assert read_entry({"adapter": "a", "text": "ab"}, 2) == ("a", "ab")


def test_a_folder_with_an_equals_sign_is_no_name(tmp_path):
    (tmp_path / "lr=1").mkdir()
    assert not is_named(str(tmp_path / "lr=1"))
    assert is_named(f"mood={tmp_path / 'lr=1'}")
    assert not is_named("runs/model")


def test_a_failure_of_a_batch_is_told_and_the_next_one_is_computed(folders):
    bank = nt.AdapterBank.load(folders)
    predict, failures = bank.predict, [RuntimeError("no memory")]

    def failing(requests, **options):
        if failures:
            raise failures.pop()
        return predict(requests, **options)

    bank.predict = failing

    async def ask_twice():
        async with nt.AsyncBank(bank) as front:
            with pytest.raises(RuntimeError, match="no memory"):
                await front.predict("a0", TEXTS[0])
            return await front.predict("a0", TEXTS[0])

    assert isinstance(asyncio.run(ask_twice()), nt.Classification)


class Server:
    """``nlp-transfer serve`` in a process of its own."""

    def __init__(self, folders, *flags):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        models = [f"{name}={folder}" for name, folder in folders.items()]
        port = self.url.rpartition(":")[2]
        words = [sys.executable, "-m", "nlp_transfer", "serve", *models, "--port", port, *flags]
        self.process = subprocess.Popen(
            words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def __enter__(self):
        for _ in range(600):
            assert self.process.poll() is None, self.process.stderr.read()
            try:
                self.get("/health")
            except OSError:
                time.sleep(0.1)
            else:
                return self
        raise AssertionError("the server does not answer")

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def get(self, path):
        with urllib.request.urlopen(f"{self.url}{path}", timeout=30) as answer:
            return json.loads(answer.read())

    def post(self, body, path="/predict"):
        """The status, and what came back."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data=data, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read()) | {"retry_after": error.headers.get("Retry-After")}

    def ask(self, requests):
        return self.post({"requests": [{"adapter": name, "text": text} for name, text in requests]})


@pytest.mark.enable_socket
def test_the_server_answers_a_mixed_load_and_bad_bodies_one_by_one(folders, alone):
    drawn = random.Random(0)
    loads = [[drawn.choice(list(alone)) for _ in range(drawn.randint(1, 6))] for _ in range(40)]
    with Server(folders) as server:
        assert server.get("/health")["adapters"] == list(folders)
        with ThreadPoolExecutor(8) as clients:
            for requests, (status, found) in zip(loads, clients.map(server.ask, loads), strict=True):
                assert status == 200
                wanted = [alone[request] for request in requests]
                assert all(map(is_close, found["answers"], wanted))
        status, found = server.ask([("nobody", "x"), ("a0", TEXTS[0])])
        assert status == 200
        assert "no adapter 'nobody'" in found["answers"][0]["error"]
        assert is_close(found["answers"][1], alone["a0", TEXTS[0]])
        bodies = [b"", b"{", b"[]", b'{"requests": 3}', b'{"requests": {}}', b'{"requests": ""}', b"[" * 100_000]
        for body in bodies:
            status, found = server.post(body)
            assert (status, "must be JSON like" in found["error"]) == (400, True)
        odd = [
            {},
            3,
            {"adapter": "a0"},
            {"adapter": "a0", "text": "x", "more": 1},
            {"adapter": "a0", "pair": ["a", "b"]},
        ]
        odd += [{"adapter": "a0", "text": "x" * 20_001}, {"adapter": "\ud800", "text": "x"}]
        good = [{"adapter": "a1", "text": ["Ada", "left"]}, {"adapter": "a0", "text": TEXTS[0]}]
        status, found = server.post({"requests": [*odd, *good]})
        assert status == 200
        assert ["error" in answer for answer in found["answers"]] == [True] * len(odd) + [False] * 2
        assert server.post(b"x" * 2**21)[0] == 413
        assert server.ask([("a0", "x")] * 257)[0] == 413
        assert server.ask([("a0", 7)])[1]["answers"][0]["error"].startswith("text: this model reads")


@pytest.mark.enable_socket
def test_overload_is_told_and_a_stop_answers_what_has_come_in(folders):
    long = ("a1", " ".join(TEXTS) * 5)
    with Server(folders, "--max-waiting", "64", "--max-batch", "16") as server:
        with ThreadPoolExecutor(16) as clients:
            found = list(clients.map(lambda _: server.ask([long] * 16), range(48)))
        assert {status for status, _ in found} == {200, 429}
        assert all(body["retry_after"] == "1" for status, body in found if status == 429)
        assert server.ask([long])[0] == 200
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as leaving:
            leaving.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")

        with ThreadPoolExecutor(1) as clients:
            last = clients.submit(server.ask, [long] * 60)
            while not server.get("/health")["waiting"]:
                assert not last.done(), "the batch was over before it could be seen"
            server.process.send_signal(signal.SIGTERM)
            assert last.result()[0] == 200
        out, err = server.process.communicate(timeout=60)
        assert (server.process.returncode, err) == (0, "")
        assert out.startswith("4 adapters at http://127.0.0.1:")


@pytest.mark.enable_socket
def test_a_port_that_is_taken_is_one_line(folders, call):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        program = [
            sys.executable,
            "-m",
            "nlp_transfer",
            "serve",
            str(folders["a0"]),
            "--port",
            str(taken.getsockname()[1]),
        ]
        done = subprocess.run(program, check=False, capture_output=True, text=True, env=environment(), timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith("error: The server cannot listen at 127.0.0.1:")
    code, _, err = call("serve", folders["a0"], "--port", 70000)
    assert (code, "--port must be from 0 (any that is free) to 65535, got 70000" in err) == (2, True), err
    code, _, err = call("serve", "a=x", "a=y")
    assert (code, "under different names" in err) == (2, True)


def test_threads_are_left_over_by_no_front(folders):
    async def enter():
        async with nt.AsyncBank(nt.AdapterBank.load({"a0": folders["a0"]})) as front:
            await front.predict("a0", TEXTS[0])
        with pytest.raises(nt.BusyError, match="stopping"):
            await front.predict("a0", TEXTS[0])

    before = threading.active_count()
    asyncio.run(enter())
    assert threading.active_count() == before
