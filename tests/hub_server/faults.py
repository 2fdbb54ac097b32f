"""What can go wrong between a client and the Hub, to be acted out on the requests that a test names."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

Kind = Literal["status", "quota", "reset", "silence", "truncated", "lost_answer"]
QUOTA_STATUS, QUOTA_MESSAGE = 403, "Private repository storage limit reached, please upgrade your plan"
RESET_AT_ONCE = struct.pack("ii", 1, 0)


@dataclass
class Fault:
    """Acted out once, on the first request that it matches.

    ``status`` answers with that status, ``quota`` says that the storage is full, ``reset`` breaks the connection and
    ``silence`` answers nothing for some seconds before it does; all of these do no work. ``lost_answer`` does the work
    and breaks the connection then, ``truncated`` does it too and sends only the first part of the answer.
    """

    kind: Kind
    path: str = ""
    """A regular expression, searched for in the path as it is sent (refs%2Fpr%2F1 stays like that)."""
    method: str = ".*"
    """A regular expression for all of it."""
    status: int = 503
    message: str = "Service Unavailable"
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 1.0
    """How long ``silence`` lasts."""
    sent: int | None = None
    """How many bytes of a body ``truncated`` sends; half of them if not said."""

    def matches(self, method: str, path: str) -> bool:
        return re.fullmatch(self.method, method) is not None and re.search(self.path, path) is not None

    @property
    def breaks_the_connection(self) -> bool:
        return self.kind not in ("status", "quota")

    @property
    def does_the_work(self) -> bool:
        return self.kind in ("truncated", "lost_answer")

    def refusal(self) -> Response | None:
        """The answer of the kinds that give one instead of doing the work."""
        if self.breaks_the_connection:
            return None
        full = self.kind == "quota"
        message = QUOTA_MESSAGE if full else self.message
        headers = {"X-Error-Message": message, **self.headers}
        return JSONResponse({"error": message}, QUOTA_STATUS if full else self.status, headers)


async def gone(receive: Receive) -> None:
    """Until the connection is closed, by whichever side."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def break_connection(fault: Fault, answer: Response | None, scope: Scope, receive: Receive, send: Send) -> None:
    """Act out one of the faults that end with the connection."""
    transport: asyncio.Transport = scope["state"]["transport"]
    if fault.kind == "silence":
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(gone(receive), fault.seconds)
    if fault.kind == "truncated" and answer is not None:
        await _send_part(fault, answer, send)
        transport.close()
    if fault.kind == "reset":
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_ONCE)
    if not transport.is_closing():
        transport.abort()
    await gone(receive)


async def _send_part(fault: Fault, answer: Response, send: Send) -> None:
    """At least one byte less than the header announces."""
    body = bytes(answer.body)
    part = body[: len(body) // 2 if fault.sent is None else min(fault.sent, len(body) - 1)]
    headers = [row for row in answer.raw_headers if row[0].lower() != b"content-length"]
    headers.append((b"content-length", str(max(len(body), 1)).encode()))
    await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": part, "more_body": True})
