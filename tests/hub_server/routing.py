"""One request as an endpoint sees it, and the table that finds the endpoint."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response

from tests.hub_server.git_repository import Repository
from tests.hub_server.responses import ApiError
from tests.hub_server.storage import Storage, User

PLACE = re.compile(r"\{(\w+)(\*?)\}")


@dataclass(frozen=True)
class Call:
    storage: Storage
    request: Request
    body: bytes
    parts: dict[str, str]
    """Of the path, by the names that the pattern gives them."""

    def json(self, *required: str) -> dict[str, Any]:
        """The object in the body, with at least these names in it."""
        try:
            loaded = json.loads(self.body or b"{}")
        except ValueError as error:
            raise ApiError(400, f"Not JSON: {error}") from error
        if not isinstance(loaded, dict):
            raise ApiError(400, "A JSON object is expected")
        if missing := [name for name in required if name not in loaded]:
            raise ApiError(400, f"Not in the body: {', '.join(missing)}")
        return loaded

    def asks_for(self, name: str) -> bool:
        return self.request.query_params.get(name, "").lower() in ("1", "true")

    @property
    def origin(self) -> str:
        return f"{self.request.url.scheme}://{self.request.headers['host']}"

    @property
    def storage_origin(self) -> str:
        """The same server under another name: clients have to leave their token at home there, as with a CDN."""
        return f"{self.request.url.scheme}://localhost:{self.request.scope['server'][1]}"

    def user(self) -> User | None:
        header = self.request.headers.get("authorization")
        if header is None:
            return None
        token = header.removeprefix("Bearer ").strip()
        if token not in self.storage.users:
            raise ApiError(401, "Invalid credentials in Authorization header")
        return self.storage.users[token]

    def signed_in(self) -> User:
        user = self.user()
        if user is None:
            raise ApiError(401, "Invalid username or password.")
        return user

    def writer(self) -> User:
        user = self.signed_in()
        if user.role != "write":
            raise ApiError(403, "Forbidden: you must use a write token to upload to a repository.")
        return user

    def repository(self, *, write: bool = False) -> Repository:
        """The one that the path names, if the caller may see it and, with ``write``, push to it."""
        user = self.user()
        found = self.storage.repository(f"{self.parts['owner']}/{self.parts['name']}")
        visible = found.exists and (not found.details["private"] or (user and user.belongs_to(found.owner)))
        if not visible:
            raise self._not_found(user)
        if write and not self.writer().may_write(found.owner):
            raise ApiError(403, "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request.")
        return found

    def _not_found(self, user: User | None) -> ApiError:
        """The Hub answers strangers with a bare 401. Over http the client needs the code to make sense of that."""
        if user is not None:
            return ApiError(404, "Repository not found", "RepoNotFound")
        code = None if self.request.url.scheme == "https" else "RepoNotFound"
        return ApiError(401, "Invalid username or password.", code, {"WWW-Authenticate": "Bearer"})


Endpoint = Callable[[Call], Response]
Row = tuple[str, str, Endpoint]
"""Method, path with {places} in it, endpoint. A place ends at a slash, one with a star ({path*}) does not."""


def compiled(pattern: str) -> re.Pattern[str]:
    pieces, end = [], 0
    for place in PLACE.finditer(pattern):
        inside = ".+" if place[2] else "[^/]+"
        pieces += [re.escape(pattern[end : place.start()]), f"(?P<{place[1]}>{inside})"]
        end = place.end()
    return re.compile("".join(pieces) + re.escape(pattern[end:]))


class Routes:
    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = [(method, compiled(pattern), endpoint) for method, pattern, endpoint in rows]

    def answer(self, storage: Storage, request: Request, body: bytes) -> Response:
        """Paths are matched as sent: in refs%2Fpr%2F2, one revision, unquoting would make three parts."""
        path = request.scope["raw_path"].decode()
        asked = "GET" if request.method == "HEAD" else request.method
        for method, pattern, endpoint in self._rows:
            match = pattern.fullmatch(path) if method == asked else None
            if match:
                parts = {name: unquote(part) for name, part in match.groupdict().items()}
                return endpoint(Call(storage, request, body, parts))
        raise ApiError(404, f"No such endpoint: {request.method} {path}")
