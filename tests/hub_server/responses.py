"""Answers in the Hub's form: refusals with their codes, contents by ranges, times."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from starlette.responses import JSONResponse, Response

RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class ApiError(Exception):
    """A refusal: what the Hub answers instead of doing what was asked."""

    def __init__(
        self, status: int, message: str, code: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = dict(headers or {})

    def response(self) -> Response:
        """The client reads the code, not the status, to tell a missing file from a missing repository."""
        headers = {"X-Error-Message": self.message, **self.headers}
        if self.code:
            headers["X-Error-Code"] = self.code
        return JSONResponse({"error": self.message}, self.status, headers)


def byte_range(header: str | None, length: int) -> tuple[int, int] | None:
    """First and last byte of a ``Range`` header, both included; None for all of it."""
    match = RANGE.fullmatch(header or "")
    if match is None:
        return None
    first, last = int(match[1]), min(int(match[2] or length - 1), length - 1)
    if first >= length:
        raise ApiError(416, "Range Not Satisfiable", headers={"Content-Range": f"bytes */{length}"})
    return first, last


def content_response(content: bytes, range_header: str | None, headers: Mapping[str, str]) -> Response:
    """The content of a file, or the part of it that was asked for: clients go on with what they have."""
    own = {**headers, "Accept-Ranges": "bytes"}
    wanted = byte_range(range_header, len(content))
    if wanted is None:
        return Response(content, 200, own, media_type="application/octet-stream")
    first, last = wanted
    own["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
    return Response(content[first : last + 1], 206, own, media_type="application/octet-stream")


def timestamp(seconds: float | None = None) -> str:
    """A time in the Hub's form; the present one without an argument."""
    moment = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")
