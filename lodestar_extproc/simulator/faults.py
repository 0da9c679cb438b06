"""InjectedFault: what a simulated server does wrong on request, for those who test against it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

import orjson

from lodestar_extproc.simulator.api import bad_request


class FaultKind(StrEnum):
    """The ways to fail."""

    NONE = "none"
    SLOW = "slow"
    """Steps take *factor* times as long."""
    FREEZE = "freeze"
    """As a vLLM whose worker hangs: requests are taken, /health answers, no token comes."""
    UNAVAILABLE = "503"
    """New requests are refused; those under way go on."""
    RESET = "reset"
    """New requests get a TCP reset before any answer."""
    DROP_MID_STREAM = "drop_mid_stream"
    """The connection closes after *after_tokens*, the answer unfinished."""
    ERROR_EVENT = "error_event"
    """After *after_tokens* a stream ends with an error event, under the status 200 already sent."""


@dataclass(frozen=True, slots=True)
class InjectedFault:
    """One fault.

    Attributes:
        factor: for `slow`, > 0.
        after_tokens: for `drop_mid_stream` and `error_event`; 0 fails instead of the first token.
        requests: how many new requests it strikes before it is over; None for all. Not for `slow`
            and `freeze`, which strike the engine.
    """

    kind: FaultKind = FaultKind.NONE
    factor: float = 3.0
    after_tokens: int = 3
    requests: int | None = None

    @property
    def breaks_after(self) -> int | None:
        """Tokens after which an answer breaks off; None for never."""
        breaking = self.kind in (FaultKind.DROP_MID_STREAM, FaultKind.ERROR_EVENT)
        return self.after_tokens if breaking else None


def parse_fault(raw: bytes) -> InjectedFault:
    """Read the body of POST /fault.

    Raises:
        InvalidCallError: it names no fault, or a value it cannot have.
    """
    try:
        body: Any = orjson.loads(raw)
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict) or "kind" not in body:
        raise bad_request('a fault is a JSON object with a "kind"', "kind")
    known = {field.name for field in fields(InjectedFault)}
    if unknown := sorted(body.keys() - known):
        raise bad_request(f"unknown: {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    try:
        fault = InjectedFault(**body | {"kind": FaultKind(body["kind"])})
    except ValueError:
        raise bad_request(f"kind must be one of {', '.join(FaultKind)}", "kind") from None
    _check(fault)
    return fault


def _check(fault: InjectedFault) -> None:
    number = isinstance(fault.factor, int | float) and not isinstance(fault.factor, bool)
    if not number or not 0 < fault.factor < math.inf:
        raise bad_request("factor must be a positive number", "factor")
    if type(fault.after_tokens) is not int or fault.after_tokens < 0:
        raise bad_request("after_tokens must be an integer >= 0", "after_tokens")
    if fault.requests is not None and (type(fault.requests) is not int or fault.requests < 1):
        raise bad_request("requests must be an integer >= 1", "requests")
