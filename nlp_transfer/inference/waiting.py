"""An adapter bank for asynchronous programs: requests that wait together are answered together."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Any

from nlp_transfer.errors import BusyError, ConfigError, NlpTransferError
from nlp_transfer.inference.bank import AdapterBank
from nlp_transfer.inference.texts import Text


class AsyncBank:
    """Answers one request at a time to whoever awaits it, and many at a time to the bank.

    While a batch is computed, in a thread of its own, what comes in waits for the next one: nobody waits for a batch to
    fill up. Use it as ``async with``; leaving answers what waits, and nothing that comes later.
    """

    def __init__(self, bank: AdapterBank, *, max_batch: int = 64, max_waiting: int = 1024) -> None:
        if min(max_batch, max_waiting) < 1:
            raise ConfigError(f"max_batch and max_waiting must be at least 1, got {max_batch} and {max_waiting}.")
        self.bank = bank
        self._max_batch, self._max_waiting = max_batch, max_waiting
        self._waiting: deque[tuple[tuple[str, Text], asyncio.Future[Any]]] = deque()
        self._arrived = asyncio.Event()
        self._is_closing = False
        self._work: asyncio.Task[None] | None = None

    async def __aenter__(self) -> AsyncBank:
        if self._work is not None and not self._work.done():
            raise ConfigError("This AsyncBank is in use already.")
        self._arrived, self._is_closing = asyncio.Event(), False
        self._work = asyncio.create_task(self._answer())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_closing = True
        self._arrived.set()
        assert self._work is not None
        await asyncio.shield(self._work)  # whoever stops waiting for the end does not stop the answers

    @property
    def is_closing(self) -> bool:
        """Whether nothing is taken any more."""
        return self._is_closing

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    async def predict(self, name: str, text: Text) -> Any:
        """The answer of adapter ``name``, as ``AdapterBank.predict`` gives it; raises what that raises.

        Raises BusyError when ``max_waiting`` requests wait already, or the bank is closing.
        """
        (answer,) = await self.predict_all([(name, text)])
        if isinstance(answer, NlpTransferError):
            raise answer
        return answer

    async def predict_all(self, requests: list[tuple[str, Text]]) -> list[Any]:
        """All or none of them wait; an error stands in the place of a request that is refused."""
        if self._work is None:
            raise ConfigError("An AsyncBank answers inside of 'async with' only.")
        if self._is_closing:
            raise BusyError("The service is stopping.")
        if len(requests) > self._max_waiting:
            raise ConfigError(f"At most {self._max_waiting} requests may come at once, got {len(requests)}.")
        if len(self._waiting) + len(requests) > self._max_waiting:
            raise BusyError(
                f"{len(self._waiting)} requests wait already, and {self._max_waiting} may. Try again later."
            )
        loop = asyncio.get_running_loop()
        entries = [(request, loop.create_future()) for request in requests]
        self._waiting.extend(entries)
        self._arrived.set()
        try:
            return [await future for _, future in entries]
        finally:
            for _, future in entries:
                future.cancel()  # of what is answered, nothing happens
            if any(future.cancelled() for _, future in entries):  # nobody waits for those any more
                self._waiting = deque(entry for entry in self._waiting if not entry[1].done())

    async def _answer(self) -> None:
        while not (self._is_closing and not self._waiting):
            await self._arrived.wait()
            batch = [self._waiting.popleft() for _ in range(min(self._max_batch, len(self._waiting)))]
            batch = [entry for entry in batch if not entry[1].done()]  # given up a moment ago
            if not self._waiting and not self._is_closing:
                self._arrived.clear()
            if batch:
                await self._answer_batch(batch)

    async def _answer_batch(self, batch: list[tuple[tuple[str, Text], asyncio.Future[Any]]]) -> None:
        requests = [request for request, _ in batch]
        try:
            answers = await asyncio.to_thread(self.bank.predict, requests, on_error="return")
        except Exception as error:  # noqa: BLE001 - whoever waits is told, and the next batch is computed
            answers = [error] * len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():  # nobody waits any more
                continue
            if isinstance(answer, Exception) and not isinstance(answer, NlpTransferError):
                future.set_exception(answer)
            else:
                future.set_result(answer)
