"""What is held, and in which order it goes."""

from __future__ import annotations

import math

import pytest

from builders import a_request
from lodestar_extproc.config.live_settings import LiveSettings
from lodestar_extproc.config.settings import HOLD_LIMIT_S, PoolSettings
from lodestar_extproc.policies.random_choice import RandomChoice
from lodestar_extproc.routing.admission import (
    AGEING,
    MAX_HELD,
    MAX_LOOKS,
    OUTLOOK_S,
    AdmissionQueue,
    Outlook,
)


class Engines:
    """Where requests would go, and whether there is room."""

    def __init__(self) -> None:
        self.room: set[str] = set()
        self.n_looks = 0

    def look(self, ticket, _at_s):
        self.n_looks += 1
        return ticket.outlook._replace(has_room=ticket.outlook.address in self.room)


@pytest.fixture
def engines():
    return Engines()


@pytest.fixture
def queue(engines):
    return AdmissionQueue(LiveSettings(PoolSettings()), engines.look)


def offer(queue, service_s, *, at_s=0.0, address="a", has_room=False, priority=0):
    outlook = Outlook(address, service_s, has_room)
    return queue.offer(a_request(priority=priority), None, RandomChoice(), outlook, at_s)


def turns(queue, at_s):
    found = []
    while (ticket := queue.next_turn(at_s)) is not None:
        found.append(ticket)
    return found


def test_where_there_is_room_nothing_is_held(queue):
    assert offer(queue, 1.0, has_room=True) is None


def test_what_is_not_predicted_is_not_held(queue):
    assert queue.offer(a_request(), None, RandomChoice(), None, 0.0) is None


@pytest.mark.parametrize("limit_s", [0, 0.0])
def test_a_limit_of_0_holds_nothing(engines, limit_s):
    queue = AdmissionQueue(LiveSettings(PoolSettings(hold_limit_s=limit_s)), engines.look)
    assert offer(queue, 1.0) is None


def test_the_shortest_goes_first(queue, engines):
    long, short, middle = (offer(queue, s) for s in (3.0, 1.0, 2.0))
    engines.room.add("a")
    assert turns(queue, 0.1) == [short, middle, long]
    assert not queue.held


def test_a_higher_priority_goes_before_a_shorter_prompt(queue, engines):
    short, urgent, batch = (
        offer(queue, s, priority=p) for s, p in ((0.1, 0), (3.0, 2), (0.01, -1))
    )
    engines.room.add("a")
    assert turns(queue, 0.1) == [urgent, short, batch]


def test_no_priority_holds_another_beyond_its_limit(queue):
    batch = offer(queue, 1.0, priority=-1)
    for i in range(5):
        offer(queue, 0.1, at_s=1.0 + i / 10, priority=5)
    assert turns(queue, HOLD_LIMIT_S) == [batch]


def test_who_has_waited_long_goes_before_who_is_a_little_shorter(queue, engines):
    long = offer(queue, 1.0, at_s=0.0)
    short = offer(queue, 0.5, at_s=0.9 * 0.5 / AGEING)
    engines.room.add("a")
    assert turns(queue, 1.9) == [short, long]
    long = offer(queue, 1.0, at_s=0.0)
    short = offer(queue, 0.5, at_s=1.1 * 0.5 / AGEING)
    assert turns(queue, 1.9) == [long, short]


def test_each_endpoint_has_its_own_room(queue, engines):
    at_a, at_b = offer(queue, 1.0, address="a"), offer(queue, 2.0, address="b")
    engines.room.add("b")
    assert turns(queue, 0.1) == [at_b]
    assert list(queue.held) == [at_a]


def test_who_comes_does_not_overtake_those_who_wait_for_the_same_endpoint(queue, engines):
    waits = offer(queue, 1.0)
    came = offer(queue, 2.0, has_room=True)
    assert came is not None
    assert offer(queue, 2.0, address="b", has_room=True) is None
    engines.room.add("a")
    assert turns(queue, 0.1) == [waits, came]


def test_nobody_waits_beyond_the_limit(queue):
    first, second = offer(queue, 9.0, at_s=0.0), offer(queue, 1.0, at_s=1.0)
    assert first.limit_at_s == 2.0
    assert turns(queue, 1.99) == []
    assert turns(queue, 2.0) == [first]
    assert turns(queue, 3.0) == [second]


def test_what_is_not_predicted_any_more_goes_at_once(queue, engines, monkeypatch):
    ticket = offer(queue, 1.0)
    monkeypatch.setattr(queue, "_look", lambda _ticket, _at_s: None)
    assert turns(queue, 0.1) == [ticket]


def test_a_look_is_taken_when_something_changed_or_an_outlook_is_old(queue, engines):
    offer(queue, 1.0)
    assert turns(queue, 0.1) == []
    seen = engines.n_looks
    assert turns(queue, 0.1 + OUTLOOK_S / 2) == []
    assert engines.n_looks == seen
    queue.changed()
    assert turns(queue, 0.1 + OUTLOOK_S / 2) == []
    assert engines.n_looks == seen + 1
    assert turns(queue, 0.1 + 2 * OUTLOOK_S) == []
    assert engines.n_looks == seen + 2


def test_a_turn_takes_few_looks_however_many_wait(queue, engines):
    for i in range(50):
        offer(queue, 1.0, address=str(i))
    assert queue.next_turn(0.0) is None
    assert engines.n_looks == MAX_LOOKS


def test_a_withdrawn_request_has_no_turn(queue, engines):
    ticket = offer(queue, 1.0)
    queue.withdraw(ticket)
    queue.withdraw(ticket)
    engines.room.add("a")
    assert turns(queue, math.inf) == []


def test_of_very_many_the_rest_is_not_held(queue):
    assert all(offer(queue, 1.0) for _ in range(MAX_HELD))
    assert offer(queue, 1.0) is None
