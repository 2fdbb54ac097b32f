"""Servers whose data is checked when they end, and ways to ask them: huggingface_hub in a process, plain requests."""

from __future__ import annotations

import hashlib
import http.client
import json
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.hub_server.app import Hub, serving
from tests.hub_server.git_repository import run_git
from tests.processes import environment


@contextmanager
def sound(root: Path, *, xet: bool = True, https: bool = False) -> Iterator[Hub]:
    """A server whose repositories and objects are whole when it ends, and that never failed itself."""
    with serving(root, xet=xet, https=https) as hub:
        yield hub
    for repository in hub.storage.repositories():
        checked = run_git(repository.folder, "fsck", "--strict", "--full")
        assert checked.returncode == 0, checked.stderr
    for sha256 in hub.storage.lfs.hashes():
        assert hashlib.sha256(hub.storage.lfs.read(sha256)).hexdigest() == sha256
    assert not [request for request in hub.requests if request.status == 500]


def client(hub: Hub, work: str, *args: object, token: str = "hf_alice_write") -> dict[str, Any]:
    """What the client says that it found; it starts with an empty cache every time."""
    home = hub.storage.root / f"home-{time.monotonic_ns()}"
    words = [sys.executable, "-m", "tests.hub_server.client", work, *map(str, args)]
    variables = environment() | hub.client_environment(home, token)
    done = subprocess.run(words, check=False, capture_output=True, text=True, env=variables, timeout=30)
    assert done.returncode == 0, done.stderr[-5000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def connect(hub: Hub, timeout: float = 5) -> http.client.HTTPConnection:
    address = urlsplit(hub.url).netloc
    if hub.certificate:
        context = ssl.create_default_context(cafile=hub.certificate)
        return http.client.HTTPSConnection(address, timeout=timeout, context=context)
    return http.client.HTTPConnection(address, timeout=timeout)


def ask(hub: Hub, method: str, path: str, body: object = None, timeout: float = 5, **headers: str) -> tuple[Any, bytes]:
    """Response and body of one request over a connection of its own."""
    connection = connect(hub, timeout)
    try:
        own = {"Authorization": "Bearer hf_alice_write"} | headers
        connection.request(method, path, body if body is None or isinstance(body, bytes) else json.dumps(body), own)
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def create(hub: Hub, name: str = "model") -> int:
    response, _ = ask(hub, "POST", "/api/repos/create", {"name": name})
    return int(response.status)
