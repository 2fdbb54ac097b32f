"""A small HTTP server over an adapter bank.

    POST /predict   {"requests": [{"adapter": "ner", "text": "..."}, ...]}
                    -> {"answers": [{"entities": [...]}, {"error": "..."}, ...]}, one for each request, in order
    GET  /health    {"status": "ok", "adapters": [...], "waiting": 0}

400: the body is not as above. 413: it is too large. 429: too many wait; try again after ``Retry-After`` seconds. 503:
the server is stopping.
"""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from nlp_transfer.errors import BusyError, ConfigError, DataError, NlpTransferError, counted
from nlp_transfer.inference.bank import AdapterBank
from nlp_transfer.inference.files import as_record
from nlp_transfer.inference.waiting import AsyncBank

Entry = tuple[Any, Any] | DataError
"""A request, or what is wrong with it."""
RETRY_AFTER = 1
"""Seconds."""
MAX_PORT = 2**16 - 1
GRACE = 30
"""Seconds in which what has come in is answered, once the server shall stop."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the server takes at once."""

    max_bytes: int = 2**20
    """Of a body."""
    max_requests: int = 256
    """Of a body."""
    max_characters: int = 20_000
    """Of a text: NER reads long ones window by window, and others wait for that."""
    max_waiting: int = 1024
    """Requests of all bodies that wait for the bank."""
    max_batch: int = 64
    """Requests that are computed together."""


def make_app(bank: AdapterBank, limits: Limits) -> Starlette:
    """An ASGI application; any server for these can run it."""
    front = AsyncBank(bank, max_batch=limits.max_batch, max_waiting=limits.max_waiting)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with front:
            yield

    async def predict(request: Request) -> JSONResponse:
        try:
            entries = read_requests(await read_body(request, limits.max_bytes), limits)
            answers = iter(await front.predict_all([entry for entry in entries if isinstance(entry, tuple)]))
        except TooLargeError as error:
            return JSONResponse({"error": str(error)}, 413)
        except BusyError as error:
            status = 503 if front.is_closing else 429
            return JSONResponse({"error": str(error)}, status, {"Retry-After": str(RETRY_AFTER)})
        except ClientDisconnect:  # in the midst of its body: nobody reads this
            return JSONResponse({"error": "The body has no end."}, 400)
        except DataError as error:
            return JSONResponse({"error": str(error)}, 400)
        found = [next(answers) if isinstance(entry, tuple) else entry for entry in entries]
        return JSONResponse({"answers": [record_of(answer) for answer in found]})

    async def health(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok", "adapters": list(bank.names), "waiting": front.num_waiting})

    routes = [Route("/predict", predict, methods=["POST"]), Route("/health", health)]
    return Starlette(routes=routes, lifespan=lifespan)


class TooLargeError(DataError):
    """A body beyond a limit."""


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Stops reading at the limit, whatever the header says."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > max_bytes:
            raise TooLargeError(f"The body has more than {max_bytes:,} bytes.")
    return bytes(body)


def read_requests(body: bytes, limits: Limits) -> list[Entry]:
    """Each with what is wrong with it alone. Raises DataError where the body as a whole cannot be read."""
    shape = '{"requests": [{"adapter": "...", "text": "..."}, ...]}'
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise DataError(f"The body must be JSON like {shape}.") from error
    entries = raw.get("requests") if isinstance(raw, dict) else None
    if not isinstance(entries, list):
        raise DataError(f"The body must be JSON like {shape}.")
    most = min(limits.max_requests, limits.max_waiting)
    if len(entries) > most:
        raise TooLargeError(f"The body holds {len(entries):,} requests, and {most:,} may come at once.")
    return [read_entry(entry, limits.max_characters) for entry in entries]


def read_entry(entry: Any, max_characters: int) -> Entry:
    """JSON knows no tuples: "pair" holds two texts; a list as "text" holds the words of one."""
    if not isinstance(entry, dict) or entry.keys() not in ({"adapter", "text"}, {"adapter", "pair"}):
        shape = '{"adapter": "...", "text": "..."}, with "pair": ["...", "..."] in place of "text" for two texts'
        return DataError(f"A request is {shape}.")
    pair = entry.get("pair")
    text = entry.get("text") if pair is None else tuple(pair) if isinstance(pair, list) else pair
    parts = text if isinstance(text, list | tuple) else [text]
    size = sum(len(part) + 1 for part in parts if isinstance(part, str)) - 1  # words with a blank between them
    if size > max_characters:
        return DataError(f"The text has {size:,} characters; at most {max_characters:,} are read here.")
    return entry["adapter"], text


def record_of(answer: Any) -> dict[str, Any]:
    return {"error": str(answer)} if isinstance(answer, NlpTransferError) else as_record(answer)


def serve(bank: AdapterBank, host: str, port: int, limits: Limits) -> None:
    """Until SIGTERM or Ctrl-C: then what has come in is answered, and nothing else is taken."""
    if not 0 <= port <= MAX_PORT:
        raise ConfigError(f"--port must be from 0 (any that is free) to {MAX_PORT}, got {port}.")
    is_ipv6 = ":" in host
    place = f"[{host}]:{port}" if is_ipv6 else f"{host}:{port}"
    try:
        family = socket.AF_INET6 if is_ipv6 else socket.AF_INET
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(f"The server cannot listen at {place}: {error.strerror}. Take another --port.") from error
    place = f"{place.rpartition(':')[0]}:{listening.getsockname()[1]}"  # of port 0, the one that was free
    print(f"{counted(len(bank.names), 'adapter')} at http://{place}: {', '.join(bank.names)}", flush=True)
    config = uvicorn.Config(make_app(bank, limits), log_level="warning", timeout_graceful_shutdown=GRACE)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # the server takes them itself, and sends them once more when it is done
    uvicorn.Server(config).run(sockets=[listening])
