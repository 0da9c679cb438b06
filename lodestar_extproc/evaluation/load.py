"""Load: sends each arrival at its time, whatever became of those before, and times it.

What follows an answer, as the next turn of a session does, is sent when that has come. It knows any
OpenAI-compatible endpoint and nothing of routing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import aiohttp
import orjson

from lodestar_extproc.evaluation.chats import Arrival, ChatKind

SERVED_BY = "x-served-by"
"""Response header in which a simulated engine names itself."""

REQUEST_ID = "x-request-id"
NextTurns: TypeAlias = Callable[[Arrival, float], Sequence[Arrival]]
"""What is asked because an arrival has ended, at a time from the start of the load."""


def no_turns(_arrival: Arrival, _ended_at_s: float) -> tuple[Arrival, ...]:
    """Nothing waits for an answer."""
    return ()


@dataclass(frozen=True, slots=True)
class LoadRecord:
    """What became of one request; times in seconds from its sending.

    Attributes:
        at_s: when it was sent, from the start of the load.
        ttft_s, e2e_s: None where they never came.
        failure: empty for an answer that came whole.
        prompt_tokens, cached_tokens: as the engine counts them; None where it does not say.
    """

    at_s: float
    kind: ChatKind
    status: int
    ttft_s: float | None
    e2e_s: float | None
    output_chunks: int
    served_by: str
    failure: str
    session: int = -1
    turn: int = 0
    prompt_tokens: int | None = None
    cached_tokens: int | None = None

    @property
    def tpot_s(self) -> float | None:
        """Time between chunks after the first; None for fewer than two."""
        if self.ttft_s is None or self.e2e_s is None or self.output_chunks < 2:
            return None
        return (self.e2e_s - self.ttft_s) / (self.output_chunks - 1)


class LoadClient:
    """Sends arrivals to one URL.

    Args:
        url: of the server, without a path.
        timeout_s: after which an answer counts as failed.
        max_in_flight: a request that would be one more is not sent, and counts as failed: waiting
            for room would make the load depend on the answers.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str,
        timeout_s: float = 120.0,
        max_in_flight: int = 4096,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._url = url.rstrip("/") + "/v1/chat/completions"
        self._model = model
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._max_in_flight = max_in_flight
        self._clock = clock
        self.n_sent = 0
        self.records: list[LoadRecord] = []

    async def run(
        self, arrivals: Iterable[Arrival], next_turns: NextTurns = no_turns
    ) -> list[LoadRecord]:
        """Send all of *arrivals* and wait for their answers; records in order of ending."""
        started_at_s = self._clock()
        # Engines close idle connections after 5 s; one that is about to close is not taken.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4.0)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=self._timeout) as session,
            asyncio.TaskGroup() as tasks,
        ):

            async def ask(arrival: Arrival) -> None:
                await asyncio.sleep(arrival.at_s - (self._clock() - started_at_s))
                self.n_sent += 1
                await self._send(session, arrival)
                for following in next_turns(arrival, self._clock() - started_at_s):
                    tasks.create_task(ask(following))

            for arrival in arrivals:
                await asyncio.sleep(arrival.at_s - (self._clock() - started_at_s))
                tasks.create_task(ask(arrival))
        return self.records

    async def _send(self, session: aiohttp.ClientSession, arrival: Arrival) -> None:
        sent_at_s = self._clock()
        answer = _Answer()
        if self.n_sent - len(self.records) > self._max_in_flight:
            failure = f"not sent: {self._max_in_flight} requests are in flight"
        else:
            failure = await self._ask(session, arrival, answer)
        ended_s = None if failure else self._clock() - sent_at_s
        self.records.append(
            LoadRecord(
                arrival.at_s,
                arrival.kind,
                answer.status,
                answer.ttft_s,
                ended_s,
                answer.chunks,
                answer.served_by,
                failure,
                arrival.session,
                arrival.turn,
                answer.prompt_tokens,
                answer.cached_tokens,
            )
        )

    async def _ask(self, session: aiohttp.ClientSession, arrival: Arrival, answer: _Answer) -> str:
        """Send and read into *answer*; why it failed, or nothing."""
        sent_at_s = self._clock()
        body = request_body(arrival, self._model)
        headers = {"content-type": "application/json"}
        if arrival.session >= 0:
            headers[REQUEST_ID] = request_id(arrival.session, arrival.turn)
        try:
            async with session.post(self._url, data=body, headers=headers) as response:
                answer.status = response.status
                answer.served_by = response.headers.get(SERVED_BY, "")
                async for event in events(response.content):
                    answer.take(event, self._clock() - sent_at_s)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return f"{type(error).__name__}: {error}"
        return answer.failure()


@dataclass(slots=True)
class _Answer:
    """A streamed answer as it comes."""

    status: int = 0
    served_by: str = ""
    ttft_s: float | None = None
    chunks: int = 0
    ended: bool = False
    error: str = ""
    prompt_tokens: int | None = None
    cached_tokens: int | None = None

    def take(self, event: bytes, after_s: float) -> None:
        """Read one event.

        Raises:
            ValueError: it is no chunk of an answer.
        """
        if event == b"[DONE]":
            self.ended = True
            return
        chunk = orjson.loads(event)
        if not isinstance(chunk, dict):
            raise ValueError("an event that is no object")  # noqa: TRY004  (the server's mistake)
        if isinstance(chunk.get("usage"), dict):
            self._count(chunk["usage"])
        if "error" in chunk:
            self.error = f"error event: {chunk['error']}"
        elif any(choice.get("delta", {}).get("content") for choice in chunk.get("choices", ())):
            self.chunks += 1
            if self.ttft_s is None:
                self.ttft_s = after_s

    def _count(self, usage: dict[str, Any]) -> None:
        """Read the tokens; vLLM names no details where nothing was cached."""
        self.prompt_tokens = usage.get("prompt_tokens")
        if "prompt_tokens_details" in usage:
            details = usage["prompt_tokens_details"] or {}
            self.cached_tokens = details.get("cached_tokens") or 0

    def failure(self) -> str:
        if self.status != 200:
            return f"status {self.status}"
        if self.error:
            return self.error
        return "" if self.ended else "the stream broke off"


async def first_model(url: str) -> str:
    """The model that *url* serves, the first if there are several.

    Raises:
        aiohttp.ClientError, TimeoutError, ValueError: it does not say.
    """
    timeout = aiohttp.ClientTimeout(total=10.0)
    async with (
        aiohttp.ClientSession(timeout=timeout, raise_for_status=True) as session,
        session.get(url.rstrip("/") + "/v1/models") as response,
    ):
        try:
            return str(orjson.loads(await response.read())["data"][0]["id"])
        except (ValueError, LookupError, TypeError):
            raise ValueError(f"{url}/v1/models names no model") from None


def request_id(session: int, turn: int) -> str:
    """The id that a session's request goes out with.

    >>> request_id(3, 12)
    '3.12'
    """
    return f"{session}.{turn}"


def request_body(arrival: Arrival, model: str) -> bytes:
    """The JSON that asks for a streamed answer to *arrival*."""
    return orjson.dumps(
        {
            "model": model,
            "messages": [{"role": role, "content": said} for role, said in arrival.messages],
            "max_tokens": arrival.output_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    )


async def events(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """The data of each server-sent event; comments and other fields are left out."""
    rest = b""
    async for piece in content.iter_any():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip()
