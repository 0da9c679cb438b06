"""Engine: one simulated vLLM engine in virtual time, shared by the HTTP server and the cluster.

It knows no clock: time is what the caller says, and nothing happens between its calls. It owns the
arrays that the compiled steps of `kernel.py` work on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from lodestar_extproc.simulator import kernel, live_requests
from lodestar_extproc.simulator.accelerators import ACCELERATORS, EngineSpec
from lodestar_extproc.simulator.defaults import BLOCK_TOKENS
from lodestar_extproc.simulator.state import (
    EVENT,
    N_HEADS,
    EngineState,
    address_of,
    copy_state,
    empty_state,
    with_slots,
)

# Both grow by doubling when they are full: these suit most runs.
FIRST_SLOTS = 64
FIRST_SPANS = 16_384
SHOWN = (
    "shown_running",
    "shown_waiting",
    "shown_free_blocks",
    "prompt_tokens",
    "generated_tokens",
    "prefix_query_tokens",
    "prefix_hit_tokens",
    "preemptions",
    "steps",
)
"""What the metric page needs, in the order of `EngineGauges`."""


class EngineFull(RuntimeError):  # noqa: N818  (named for the condition)
    """The engine holds as many requests as its spec allows."""


class EventKind(IntEnum):
    """What the engine reports of a request."""

    FIRST_TOKEN = kernel.FIRST_TOKEN
    COMPLETED = kernel.COMPLETED


class EngineEvent(NamedTuple):
    """Something that happened to a request at the end of a step.

    Attributes:
        kind: an EventKind.
        cached_tokens: prompt tokens that came from the prefix cache.
    """

    kind: int
    request: int
    at_s: float
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class EngineGauges:
    """What the engine's metric page shows.

    The first three are those of the end of the last step, the others are totals.

    Attributes:
        waiting: queued and ready, not admitted.
        kv_usage_ratio: blocks in use, 0 to 1.
    """

    running: int
    waiting: int
    kv_usage_ratio: float
    prompt_tokens: int
    generated_tokens: int
    prefix_query_tokens: int
    prefix_hit_tokens: int
    preemptions: int
    steps: int


class Engine:
    """One engine; requests are numbered by the caller, each number once among those alive.

    Memory grows with the live requests, which `spec.max_live_requests` bounds.

    Attributes:
        address: of its record, for compiled code; the same for as long as it lives.
    """

    def __init__(self, spec: EngineSpec, seed: int = 0) -> None:
        self.spec = spec
        self._longest_tokens = spec.longest_request_tokens
        self._now_s = -math.inf
        self._hold(_initial_state(spec, seed))

    def _hold(self, state: EngineState) -> None:
        self._state = state
        self.address = address_of(state)
        self._shown = state.engine[list(SHOWN)]  # a view
        # A request has at most two events in its life.
        self._events = np.zeros(2 * len(state.requests), EVENT)
        self._next_event_s = state.engine["next_event_s"]  # a view

    def submit(
        self,
        request: int,
        block_ids: NDArray[np.uint64],
        prompt_tokens: int,
        output_tokens: int,
        at_s: float,
    ) -> None:
        """Hand the engine a request that arrives at *at_s*.

        Args:
            request: the caller's number for it, >= 0.
            block_ids: one id for each full block of 16 tokens, equal ids for equal prefixes. Ids
                beyond the prompt's are those of the output's blocks, for engines that let the next
                turn hit the answer; without them only the prompt can be hit.
            prompt_tokens: at least 1.
            output_tokens: how many it will produce, at least 1.
            at_s: no earlier than any time named before; queued `spec.api_delay_s` later.

        Raises:
            EngineFull: `spec.max_live_requests` are alive.
            ValueError: the request can never fit, or time ran backwards.
        """
        total_tokens = prompt_tokens + output_tokens
        fits = 0 < prompt_tokens < total_tokens <= self._longest_tokens
        if at_s < self._now_s or not fits:
            self._refuse(prompt_tokens, output_tokens, at_s)
        ids = block_ids[: total_tokens // BLOCK_TOKENS]
        ready_s = at_s + self.spec.api_delay_s
        arguments = (request, ids, prompt_tokens, output_tokens, ready_s)
        if not live_requests.submit(self.address, *arguments):
            self._grow(len(ids) + total_tokens // BLOCK_TOKENS + 1)
            live_requests.submit(self.address, *arguments)
        self._now_s = at_s

    def _refuse(self, prompt_tokens: int, output_tokens: int, at_s: float) -> NoReturn:
        if at_s < self._now_s:
            raise ValueError(f"time runs backwards: {at_s} s after {self._now_s} s")
        if prompt_tokens < 1 or output_tokens < 1:
            raise ValueError("a request needs at least one prompt and one output token")
        raise ValueError(
            f"{prompt_tokens} prompt and {output_tokens} output tokens exceed the "
            f"engine's {self._longest_tokens}"
        )

    def _grow(self, span: int) -> None:
        """Make room for one more request that needs *span* words."""
        state = self._state
        n_live = int(state.engine[0]["n_live"])
        if n_live >= self.spec.max_live_requests:
            raise EngineFull(f"{n_live} requests are alive, as many as the engine's spec allows")
        if n_live == len(state.requests) - N_HEADS:
            state = with_slots(state, n_live)
        spans = np.zeros(len(state.spans), np.int64)
        end = live_requests.move_spans(address_of(state), spans)
        # Half free, so that moving stays rare.
        if 2 * (end + span) > len(spans):
            spans = np.concatenate([spans[:end], np.zeros(end + 2 * span, np.int64)])
        self._hold(state._replace(spans=spans))

    def advance(self, until_s: float) -> list[EngineEvent]:
        """Run to *until_s*, inclusive; returns what happened, in order."""
        if until_s < self.next_event_s():
            return []
        events = self._run(until_s, live_requests.NOBODY)
        self._now_s = until_s if until_s < math.inf else self._last_event_s()
        return events

    def run_to_first_token(self, request: int) -> float:
        """Run until *request* has its first token and return when that is, inf for never."""
        for event in self._run(math.inf, request):
            if event.request == request and event.kind == EventKind.FIRST_TOKEN:
                return event.at_s
        return math.inf

    def _run(self, until_s: float, watched: int) -> list[EngineEvent]:
        n_events = kernel.advance(self.address, self._events, until_s, watched)
        return [EngineEvent(*row[1:]) for row in self._events[:n_events].tolist()]

    def _last_event_s(self) -> float:
        return float(self._state.engine[0]["now_s"])

    def next_event_s(self) -> float:
        """When a step ends or starts next; inf while there is nothing to do."""
        return float(self._next_event_s[0])

    def abort(self, request: int) -> bool:
        """Drop *request*, at the end of the step if one runs; False if it is not alive."""
        return bool(live_requests.abort(self.address, request))

    def progress(self) -> list[tuple[int, int]]:
        """(request, tokens generated so far) of every running request, in order of admission."""
        out = np.empty((int(self._state.engine[0]["n_running"]), 2), np.int64)
        live_requests.progress(self.address, out)
        return [(request, generated) for request, generated in out.tolist()]

    def in_flight(self) -> int:
        """Requests submitted and not ended, exact at any time."""
        return int(self._state.engine[0]["n_live"])

    def gauges(self) -> EngineGauges:
        """What a scrape would read now."""
        running, waiting, free_blocks, *totals = self._shown.tolist()[0]
        kv_usage_ratio = 1.0 - free_blocks / self.spec.kv_blocks
        return EngineGauges(running, waiting, kv_usage_ratio, *totals)

    def slow_down(self, factor: float) -> None:
        """Make every step from the next on take *factor* times as long; 1 is the spec's speed."""
        if not 0 < factor < math.inf:
            raise ValueError(f"a slow-down factor is a positive number, not {factor}")
        self._state.engine["slow_factor"] = factor

    def restart(self, seed: int) -> None:
        """Begin anew, with nothing in the cache; the record stays where it is."""
        fresh = _initial_state(self.spec, seed)
        self._state.engine[:] = fresh.engine
        self._hold(fresh._replace(engine=self._state.engine))

    def clone(self, *, noise: bool = False) -> Self:
        """An independent copy; without *noise* its steps take their mean time, unjittered."""
        copy = object.__new__(type(self))
        copy.spec, copy._longest_tokens = self.spec, self._longest_tokens
        copy._now_s = self._now_s
        state = copy_state(self._state)
        if not noise:
            state.engine["jitter_cv"] = state.engine["stall_ratio"] = 0.0
        copy._hold(state)
        return copy


def warm_up() -> None:
    """Load the compiled steps, so that the first request does not wait for that.

    About 0.3 s; 8 s where they must be compiled first.
    """
    engine = Engine(next(iter(ACCELERATORS.values())))
    engine.submit(0, np.zeros(1, np.uint64), BLOCK_TOKENS, 2, 0.0)
    engine.advance(0.0)
    engine.advance(engine.next_event_s())
    engine.progress()
    engine.abort(0)


def _initial_state(spec: EngineSpec, seed: int) -> EngineState:
    state = empty_state(spec.kv_blocks, FIRST_SLOTS, FIRST_SPANS)
    for owner in (spec.cost, spec):
        for name in owner.__dataclass_fields__:
            if name in state.engine.dtype.names:
                state.engine[name] = getattr(owner, name)
    state.engine["slow_factor"] = 1.0
    state.engine["random"] = seed
    return state
