"""Each change of an endpoint is told once, with what it means; flutter is told at a measure."""

from __future__ import annotations

import pytest

from lodestar_extproc.endpoint import Endpoint
from lodestar_extproc.events.change import ChangeKind, Severity
from lodestar_extproc.events.endpoint_changes import EndpointChanges
from lodestar_extproc.events.event_log import EventLog
from metrics_world import World


class Watched:
    """A pool's endpoints under watch, from a moment when all is well."""

    def __init__(self, n: int = 3, **settings) -> None:
        self.world = World(n, **settings)
        self.log = EventLog(lambda: self.world.now_s)
        self.changes = EndpointChanges(self.log)
        self.look()

    @property
    def address(self) -> str:
        return self.world.router.fleet.endpoints[0].address

    def look(self) -> None:
        self.changes.observe(self.world.view(), self.world.now_s)

    def after(self, s: float = 1.0) -> list[ChangeKind]:
        """What was told after a second, oldest first."""
        before = self.log.last(1)
        self.world.now_s += s
        self.look()
        return [e.kind for e in reversed(self.log.last(99, before[0].number if before else 0))]

    def probe(self, *addresses: str, healthy: bool = False) -> None:
        for address in addresses:
            for _ in range(5):
                self.world.router.fleet.record_probe(address, healthy, self.world.now_s)

    def text(self) -> str:
        return self.log.last(1)[0].text


def test_a_pool_that_is_well_tells_nothing():
    watched = Watched()
    watched.world.serve(20)

    assert watched.after() == []


def test_an_endpoint_down_and_up_again_is_told_once_each_with_the_reason():
    watched = Watched()
    watched.changes.found(watched.address, "connection refused")
    watched.probe(watched.address)

    assert watched.after() == [ChangeKind.ENDPOINT_DOWN]
    assert watched.text() == (
        f"endpoint {watched.address} is down: connection refused. "
        "It gets no request until a probe succeeds"
    )
    assert watched.after() == []
    watched.probe(watched.address, healthy=True)
    assert watched.after() == [ChangeKind.ENDPOINT_UP]
    assert watched.after() == []


def test_everything_down_is_said_loudly_and_when_it_is_over():
    watched = Watched(3)
    addresses = [e.address for e in watched.world.router.fleet.endpoints]
    watched.changes.found(addresses[0], "it answered 404")
    watched.probe(*addresses)

    assert watched.after() == [*[ChangeKind.ENDPOINT_DOWN] * 3, ChangeKind.ALL_DOWN]
    loud = watched.log.last(1)[0]
    assert loud.severity is Severity.ERROR
    assert "all 3 endpoints of pool pool are out: 3 down" in loud.text
    assert "What was found last: it answered 404. If they do serve" in loud.text
    assert "health_path" in loud.text
    assert "TLS" in loud.text
    watched.probe(addresses[0], healthy=True)
    assert watched.after() == [ChangeKind.ENDPOINT_UP, ChangeKind.SOME_UP]


def test_requests_that_fail_tell_of_the_ejection():
    watched = Watched()
    watched.world.router.fleet.health.failed(watched.address, watched.world.now_s)

    assert watched.after(0.5) == [ChangeKind.ENDPOINT_EJECTED]
    # On probation nothing is told, until a request has shown what it is.
    assert watched.after(60.0) == []
    watched.world.router.fleet.health.succeeded(watched.address, watched.world.now_s)
    assert watched.after() == [ChangeKind.ENDPOINT_UP]


def test_sleep_and_freezing_are_told():
    watched = Watched()
    health = watched.world.router.fleet.health
    health.slept(watched.address, asleep=True)
    assert watched.after() == [ChangeKind.ENDPOINT_SLEEPING]
    health.slept(watched.address, asleep=False)
    assert watched.after() == [ChangeKind.ENDPOINT_UP]
    health.froze(watched.address)
    assert watched.after() == [ChangeKind.ENDPOINT_FROZEN]


def test_who_joins_is_cold_and_who_leaves_is_named():
    watched = Watched(1)
    stays = watched.world.router.fleet.endpoints[0]
    watched.world.router.set_endpoints([stays, Endpoint("10.9.9.9:8000")])
    assert watched.after() == [ChangeKind.ENDPOINT_JOINED]
    assert "10.9.9.9:8000 has joined, cold" in watched.text()
    watched.world.router.set_endpoints([stays])
    assert watched.after() == [ChangeKind.ENDPOINT_LEFT]
    assert "10.9.9.9:8000 has left" in watched.text()


def test_a_fluttering_endpoint_is_told_at_a_measure_and_its_last_state_always():
    watched = Watched()
    told = []
    for i in range(601):
        watched.probe(watched.address, healthy=i % 2 == 1)
        told += watched.after()
    assert len(told) <= 4 + 601 * 0.05 + 1
    # It ended down: whatever was left out, that is what was told last, soon.
    for _ in range(30):
        told += watched.after()
    assert told[-1] is ChangeKind.ENDPOINT_DOWN


def test_drift_and_doubt_are_told_with_the_error():
    watched = Watched(2, policy="learned", burn_in_samples=1)
    watched.world.serve(120, ttft_s=0.5)
    assert ChangeKind.DRIFT not in watched.after()
    told = []
    for _ in range(120):
        watched.world.serve(1, ttft_s=4.0)
        told += watched.after()

    assert ChangeKind.DRIFT in told or ChangeKind.ENDPOINT_DOUBTED in told
    texts = " ".join(event.text for event in watched.log.last(99))
    assert "learned anew" in texts or "median error is" in texts


@pytest.mark.parametrize("n", [0, 1])
def test_an_empty_pool_is_no_outage(n):
    watched = Watched(n)
    watched.world.router.set_endpoints([])

    assert ChangeKind.ALL_DOWN not in watched.after()
