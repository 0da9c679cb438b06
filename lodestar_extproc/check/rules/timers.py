"""One rule over every timer that can end an answer early.

Which these are, and which holds where several are written, was tried with Envoy 1.40: answers of
7 s, whole, silent or in chunks, against each timer at 2 s. `tests/check/test_timers.py` keeps it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lodestar_extproc.check.clusters import protocol_options
from lodestar_extproc.check.finding import Fault, drop
from lodestar_extproc.check.rules.retry_policies import without

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lodestar_extproc.check.finding import Patch
    from lodestar_extproc.check.subject import Gateway, Subject
    from lodestar_extproc.config.connection_manager import Route
    from lodestar_extproc.config.node import Node

DEFAULT_TIMEOUT_S = 15.0
"""Envoy's own, where a route sets none."""
DEFAULT_IDLE_S = 300.0
"""Envoy's own, where neither route nor connection manager sets one."""
MIN_TIMEOUT_S = 60.0
"""An answer of 2,000 tokens takes about a minute at 30 tokens a second."""
IDLE_TIMEOUT = "3600s"
"""What the cure sets, as `envoy/envoy.yaml` does."""

WHOLE = "an answer that takes longer than {} is cut off in the middle"
ASKED = "an answer to a request with a grpc-timeout header is cut off after {}, whatever it asks"
SILENT = (
    "an answer that is silent for {} is cut off: nothing is sent while a prompt waits in a queue "
    "or is computed"
)
NOT_BEGUN = (
    "an answer that has not begun after {}, as one that is not streamed has not, is given up: 504, "
    "or generated once more"
)


@dataclass(frozen=True, slots=True)
class Timer:
    """A timer that holds for the answers of a route.

    Attributes:
        place: where it is written, or would be.
        held_s: 0 where it is off.
        problem: what it does, with a gap for the time.
    """

    place: Node
    held_s: float
    problem: str
    cure: tuple[Patch, ...]


def answer_timers(subject: Subject) -> Iterator[Fault]:
    """Answers take minutes, and say nothing while a prompt is computed."""
    for gateway, route in subject.ways:
        pool = subject.resources.cluster(route.cluster)
        timers = [
            *_of_the_route(subject, gateway, route),
            *_of_retries(subject, route),
            *([] if pool is None else _of_the_cluster(pool)),
        ]
        for timer in timers:
            if 0 < timer.held_s < MIN_TIMEOUT_S:
                yield Fault(timer.place, timer.problem.format(f"{timer.held_s:g} s"), timer.cure)


def silent_for_minutes(subject: Subject) -> Iterator[Fault]:
    """Envoy ends a stream after five minutes without a byte, unless told otherwise."""
    for gateway, route in subject.ways:
        own, inherited = _idle_timeouts(gateway, route)
        if not own and not inherited:
            problem = SILENT.format("5 minutes, Envoy's default,")
            yield Fault(inherited, problem, (subject.put(own, IDLE_TIMEOUT),))


def _of_the_route(subject: Subject, gateway: Gateway, route: Route) -> Iterator[Timer]:
    timeout = route.node.get("route", "timeout")
    held_s = timeout.seconds if timeout else DEFAULT_TIMEOUT_S
    yield Timer(timeout, held_s or 0.0, WHOLE, (subject.put(timeout, "0s"),))

    limits = route.node.get("route", "max_stream_duration")
    own = limits.get("max_stream_duration")
    inherited = gateway.manager.config.get("common_http_protocol_options", "max_stream_duration")
    # Another route of the same manager may want it: ours is freed of it.
    freed = (subject.put(own, "0s"),)
    longest = own or inherited
    yield Timer(longest, longest.seconds or 0.0, WHOLE, freed)
    asked = limits.get("grpc_timeout_header_max")
    yield Timer(asked, asked.seconds or 0.0, ASKED, (drop(asked),))

    own, inherited = _idle_timeouts(gateway, route)
    idle = own or inherited
    yield Timer(idle, idle.seconds or 0.0, SILENT, (subject.put(own, IDLE_TIMEOUT),))


def _idle_timeouts(gateway: Gateway, route: Route) -> tuple[Node, Node]:
    """The route's own and the one that it has without; where neither is set, 5 minutes."""
    return route.node.get("route", "idle_timeout"), gateway.manager.config.get(
        "stream_idle_timeout"
    )


def _of_retries(subject: Subject, route: Route) -> Iterator[Timer]:
    for name, problem in (("per_try_timeout", NOT_BEGUN), ("per_try_idle_timeout", SILENT)):
        timer = route.retry_policy.get(name)
        yield Timer(timer, timer.seconds or 0.0, problem, without(subject, route, name))


def _of_the_cluster(pool: Node) -> Iterator[Timer]:
    options = protocol_options(pool)
    # The options of before hold only where there are none of now.
    timer = (options or pool).get("common_http_protocol_options", "max_stream_duration")
    yield Timer(timer, timer.seconds or 0.0, WHOLE, (drop(timer),))
