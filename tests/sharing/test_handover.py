"""What is heard of another replica's request goes to it, whole; what is ours stays here."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import a_request, a_router
from lodestar_extproc.completion import (
    AnswerForm,
    AnswerReport,
    Completion,
    FirstToken,
    KeptAnswer,
    KeptState,
    Outcome,
)
from lodestar_extproc.generated.lodestar.v1.replicas_pb2 import Handed
from lodestar_extproc.routing.assembly import policy_for_route
from lodestar_extproc.routing.ids import new_id, new_origin, owner_of
from lodestar_extproc.routing.routers import Routers
from lodestar_extproc.sharing.handed import Observed, decode, encode
from lodestar_extproc.sharing.handover import Handover

ID = "pool.00c0ffee0123456789abcdef"
EVENTS = [
    FirstToken(ID, 5.0, "10.0.0.1:8000", body_began_before=True, form=AnswerForm.ONE_PIECE),
    FirstToken(ID, 5.0),
    AnswerReport(ID, failed=True, prompt_tokens=10, cached_tokens=0, output_tokens=3),
    AnswerReport(ID, form=AnswerForm.STREAM),
    AnswerReport(ID),
    Completion(5.0, Outcome.SERVED, ID, served="[fd00::1]:8000", attempts=2, ttft_s=0.25),
    Completion(5.0, Outcome.FAILED, ID, flags=("UF", "URX"), response_code=503, retry_after_s=2.0),
    Completion(5.0, Outcome.CLIENT_GONE, stream_id="00c0ffee0123456789abcdef", is_empty=True),
    KeptAnswer(ID, 5.0, "resp_1", KeptState.RUNNING, "10.0.0.1:8000", 7),
    KeptAnswer(ID, 5.0, "", KeptState.GONE),
    Observed(ID),
    Completion(5.0, Outcome.SERVED, ID, output_tokens=1, prompt_tokens=2, form=AnswerForm.STREAM),
]


class Counted:
    def __init__(self) -> None:
        self.results: list[str] = []

    def handed_over(self, result: str) -> None:
        self.results.append(str(result))


class Pair:
    """Two replicas of one pool, each told by the other, or by nobody."""

    def __init__(self, *, linked: bool = True) -> None:
        rng = random.Random(1)
        self.origins = [new_origin(rng), new_origin(rng)]
        self.routers = [a_router(origin=origin) for origin in self.origins]
        self.counted = [Counted(), Counted()]
        self.linked = linked
        self.handovers = [
            Handover(origin, Routers([router], policy_for_route), self._post, counted)
            for origin, router, counted in zip(
                self.origins, self.routers, self.counted, strict=True
            )
        ]

    def _post(self, owner: str, event) -> bool:
        if not self.linked or owner not in self.origins:
            return False
        told = Handed.FromString(encode(event, 10.0).SerializeToString())
        self.handovers[self.origins.index(owner)].receive(decode(told, 110.0))
        return True


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_arrives_as_it_was_on_a_clock_that_is_100_s_ahead(event):
    told = Handed.FromString(encode(event, 10.0).SerializeToString())

    arrived = decode(told, 110.0)

    timeless = isinstance(event, AnswerReport | Observed)
    expected = event if timeless else event._replace(at_s=105.0)
    assert arrived == expected


@given(st.binary(max_size=200))
def test_garbage_is_no_event_and_no_error(data):
    told = Handed()
    try:
        told.ParseFromString(data)
    except Exception:  # noqa: BLE001  (protobuf's own)
        return
    decode(told, 1.0)


def test_ids_say_who_made_them():
    rng = random.Random(7)
    origin = new_origin(rng)

    assert owner_of(f"a.pool.with.dots.{new_id(origin, rng)}") == origin
    assert owner_of(new_id(origin, rng)) == origin
    assert owner_of(f"pool.{new_id('', rng)}") == ""
    assert owner_of("") == ""


def test_a_request_decided_by_one_and_heard_of_by_the_other_is_over_in_both():
    pair = Pair()
    decision = pair.routers[0].route(a_request(), request_id="r", at_s=1.0)
    heard_by = pair.handovers[1]

    heard_by.first_token(FirstToken(decision.decision_id, 1.5, decision.address, watched=True))
    assert pair.routers[0].fleet.snapshot(200.0).decode_requests.sum() == 1

    assert heard_by.complete(Completion(2.0, Outcome.SERVED, decision.decision_id))
    assert [router.n_open for router in pair.routers] == [0, 0]
    assert pair.counted[1].results == ["handed", "handed"]
    assert pair.counted[0].results == ["received", "received"]


def test_a_decision_that_came_too_late_is_ended_by_its_owner_through_the_streams_id():
    pair = Pair()
    stream_id = new_id(pair.origins[0], random.Random(3))
    pair.routers[0].route(a_request(), request_id="r", stream_id=stream_id, at_s=1.0)

    pair.handovers[1].complete(Completion(2.0, Outcome.SERVED, stream_id=stream_id))

    assert pair.routers[0].n_open == 0


def test_what_is_ours_or_has_no_owner_is_handed_to_nobody():
    pair = Pair()
    decision = pair.routers[0].route(a_request(), request_id="r", at_s=1.0)

    assert pair.handovers[0].complete(Completion(2.0, Outcome.SERVED, decision.decision_id))
    assert not pair.handovers[0].complete(Completion(2.0, Outcome.SERVED, "pool.0123456789abcdef"))
    assert pair.counted[0].results == []


def test_what_cannot_be_handed_over_is_counted_and_warned_of_once(caplog):
    pair = Pair(linked=False)
    decision = pair.routers[0].route(a_request(), request_id="r", at_s=1.0)

    for _ in range(3):
        assert not pair.handovers[1].complete(Completion(2.0, Outcome.SERVED, decision.decision_id))

    assert pair.counted[1].results == ["lost"] * 3
    (warning,) = [r.getMessage() for r in caplog.records if "cannot be told" in r.getMessage()]
    assert pair.origins[0] in warning
    assert "serve --peer" in warning
