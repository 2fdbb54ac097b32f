"""The server: requests are noted, faults acted out, and the rest answered; on a loopback port, in a thread."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme
import uvicorn
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from tests.hub_server import api, commits, transfers
from tests.hub_server.faults import Fault, break_connection
from tests.hub_server.git_repository import Repository
from tests.hub_server.responses import ApiError
from tests.hub_server.routing import Routes
from tests.hub_server.storage import USERS, Storage, User

HOST = "127.0.0.1"
PATIENCE = 10
LOGGER = logging.getLogger(__name__)
ROUTES = Routes([*api.ROWS, *commits.ROWS, *transfers.ROWS])


@dataclass(frozen=True)
class Recorded:
    """A request as it came in; the status is that of the answer, None if none was sent."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    status: int | None


class Application:
    """What uvicorn calls for every request. One at a time does its work, whatever the number of clients."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.faults: list[Fault] = []
        self.requests: list[Recorded] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            body = await request.body()
        except ClientDisconnect:
            return
        fault = self._next_fault(request)
        answer = fault.refusal() if fault else None
        if fault is None or fault.does_the_work:
            answer = await run_in_threadpool(self._answer, request, body)
        self._record(request, body, None if fault and fault.kind == "lost_answer" else answer)
        if fault and fault.breaks_the_connection:
            await break_connection(fault, answer, scope, receive, send)
        elif answer is not None:
            await answer(scope, receive, send)

    def _next_fault(self, request: Request) -> Fault | None:
        with self.storage.lock:
            for place, fault in enumerate(self.faults):
                if fault.matches(request.method, request.scope["raw_path"].decode()):
                    return self.faults.pop(place)
        return None

    def _answer(self, request: Request, body: bytes) -> Response:
        try:
            with self.storage.lock:
                return ROUTES.answer(self.storage, request, body)
        except ApiError as error:
            return error.response()
        except Exception:
            LOGGER.exception("The test server failed at %s %s", request.method, request.url)
            return JSONResponse({"error": "The test server failed"}, 500)

    def _record(self, request: Request, body: bytes, answer: Response | None) -> None:
        path, query = request.scope["raw_path"].decode(), request.scope["query_string"].decode()
        status = answer.status_code if answer is not None else None
        with self.storage.lock:
            self.requests.append(Recorded(request.method, path, query, dict(request.headers), body, status))


class Connection(H11Protocol):
    """Lets the application at its transport: some faults close it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


def bound_socket(port: int = 0) -> socket.socket:
    """Bound but not listening, so that connections are refused and nobody else gets the port."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((HOST, port))
    return made


class Listener:
    """A uvicorn server in a thread, on a port that stays the same while it is away."""

    def __init__(self, config: uvicorn.Config) -> None:
        self._server = uvicorn.Server(config)
        self._reserved: socket.socket | None = bound_socket()
        self.port: int = self._reserved.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="hub server", daemon=True)

    def _run(self) -> None:
        self._loop.run_until_complete(self._server.serve(sockets=self._take_reserved()))
        self._loop.close()

    def _take_reserved(self) -> list[socket.socket]:
        taken, self._reserved = self._reserved, None
        return [taken] if taken else []

    def _wait(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    def start(self) -> None:
        self._thread.start()
        deadline = time.monotonic() + PATIENCE
        while not self._server.started:
            if time.monotonic() > deadline or not self._thread.is_alive():
                raise RuntimeError("The hub server did not start")
            time.sleep(0.01)

    async def _stop_listening(self) -> None:
        for server in self._server.servers:
            server.close()
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()
        if self._reserved is None:
            self._reserved = bound_socket(self.port)

    def stop_listening(self) -> None:
        self._wait(self._stop_listening())

    def listen_again(self) -> None:
        if self._reserved:
            self._wait(self._server.startup(sockets=self._take_reserved()))

    def close(self) -> None:
        self.stop_listening()
        self._server.should_exit = True
        self._thread.join(PATIENCE)
        for unused in self._take_reserved():
            unused.close()


class Hub:
    """What a test sees of the server."""

    def __init__(self, root: Path, users: Mapping[str, User], *, xet: bool, https: bool) -> None:
        self.storage = Storage(root, users, xet=xet)
        application = Application(self.storage)
        self.requests = application.requests
        """In the order of their answers."""
        self.faults = application.faults
        """Add to it; a fault is taken out when it is acted out."""
        self.certificate = root / "certificate.pem" if https else None
        """Of the authority to trust, for SSL_CERT_FILE."""
        options: dict[str, Any] = {"lifespan": "off", "ws": "none", "http": Connection, "loop": "asyncio"}
        options |= {"log_config": None, "log_level": "critical", "timeout_graceful_shutdown": 1}
        if self.certificate:
            options["ssl_certfile"] = str(issue_certificate(self.certificate))
        self.listener = Listener(uvicorn.Config(application, **options))
        self.url = f"{'https' if https else 'http'}://{HOST}:{self.listener.port}"

    def client_environment(self, home: Path, token: str = "hf_alice_write") -> dict[str, str]:
        """Variables for a client. They are read when it is imported: start a process with them."""
        variables = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_TOKEN": token, "HF_HUB_OFFLINE": "0"}
        variables |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        variables["HF_HUB_DISABLE_XET"] = "0" if self.storage.xet else "1"
        return variables | ({"SSL_CERT_FILE": str(self.certificate)} if self.certificate else {})

    def stop_listening(self) -> None:
        """Connections are refused from now on, open ones closed."""
        self.listener.stop_listening()

    def listen_again(self) -> None:
        self.listener.listen_again()

    def down(self, seconds: float) -> threading.Timer:
        """Away now, back after these seconds. Join what this gives to wait for it."""
        self.stop_listening()
        timer = threading.Timer(seconds, self.listen_again)
        timer.start()
        return timer

    def repository(self, repo_id: str) -> Repository:
        return self.storage.repository(repo_id)

    def commits(self, repo_id: str, revision: str = "main") -> list[str]:
        """Commit ids, newest first."""
        with self.storage.lock:
            return [commit["id"] for commit in self.repository(repo_id).history(revision)]

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """Contents by path, those in LFS too, as they were uploaded."""
        with self.storage.lock:
            repository = self.repository(repo_id)
            entries = repository.entries(repository.resolve(revision)).values()
            files = [entry for entry in entries if not entry.is_folder]
            return {entry.path: self.storage.content(repository, entry) for entry in files}

    def corrupt(self, repo_id: str, path: str, revision: str = "main") -> None:
        """From now on one byte of this content is served wrong, its size right."""
        with self.storage.lock:
            repository = self.repository(repo_id)
            self.storage.corrupt(repository.file(repository.resolve(revision), path))

    def move_branch(self, repo_id: str, branch: str = "main", files: Mapping[str, bytes] | None = None) -> str:
        """Somebody else commits; gives the commit's id."""
        with self.storage.lock:
            repository = self.repository(repo_id)
            parent, additions = repository.resolve(branch), files or {"elsewhere.txt": str(time.time_ns()).encode()}
            reference = f"refs/heads/{branch}"
            return repository.commit(reference, parent, "From elsewhere", additions=additions, user="somebody")

    def make_private(self, repo_id: str, private: bool = True) -> None:
        with self.storage.lock:
            self.repository(repo_id).update(private=private)


def issue_certificate(authority_file: Path) -> Path:
    """A certificate for the loopback, with its key in one file; the authority's goes to the file named."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(authority_file))
    own = authority_file.with_name("server.pem")
    authority.issue_cert(HOST, "localhost").private_key_and_cert_chain_pem.write_to_path(str(own))
    return own


@contextmanager
def serving(root: Path, *, xet: bool = True, https: bool = False, users: Mapping[str, User] = USERS) -> Iterator[Hub]:
    """A Hub of its own, with its data below ``root``. Clients need an HF_HOME of their own with each."""
    hub = Hub(root, users, xet=xet, https=https)
    hub.listener.start()
    try:
        yield hub
    finally:
        hub.listener.close()
