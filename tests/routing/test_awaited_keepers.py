"""A client that goes on from an answer at once waits a moment for who keeps it to be told."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from builders import a_prompt, a_request, a_router, live_settings
from lodestar_extproc.completion import KeptAnswer, KeptState
from lodestar_extproc.fleet.peer_requests import PeerRequest
from lodestar_extproc.request import Keeping, RequestKind, name_key
from lodestar_extproc.routing.awaited_keepers import AWAITED_S, AwaitedKeepers


@dataclass
class Known:
    """What is known of who keeps what."""

    keys: set[int] = field(default_factory=set)
    others: bool = True

    def knows(self, key: int) -> bool:
        return key in self.keys

    def may_be_told(self) -> bool:
        return self.others


def going_on(key: int | None = 5, **keeping):
    return a_request(keeping=Keeping(continues=key, **keeping))


def test_its_turn_comes_as_soon_as_its_keeper_is_known():
    known = Known()
    queue = AwaitedKeepers(live_settings(), known)
    ticket, other = queue.offer(going_on(5), 1.0), queue.offer(going_on(6), 1.0)
    assert queue.next_turn(1.01) is None
    known.keys.add(6)
    assert queue.next_turn(1.02) is other
    assert queue.next_turn(1.02) is None
    assert queue.next_turn(ticket.limit_at_s) is ticket
    assert ticket.limit_at_s == 1.0 + AWAITED_S


@pytest.mark.parametrize(
    ("request_", "known"),
    [
        (going_on(5), Known({5})),
        (going_on(5), Known(others=False)),
        (going_on(None), Known()),
        (going_on(5, is_conversation=True), Known()),
        (a_request(), Known()),
    ],
)
def test_whose_keeper_is_known_or_cannot_be_told_goes_at_once(request_, known):
    assert AwaitedKeepers(live_settings(), known).offer(request_, 1.0) is None


def test_in_shadow_nobody_waits():
    queue = AwaitedKeepers(live_settings(shadow=True), Known())
    assert queue.offer(going_on(5), 1.0) is None
    assert not queue.is_owed("resp_1")


def test_one_that_leaves_has_no_turn():
    queue = AwaitedKeepers(live_settings(), Known())
    ticket = queue.offer(going_on(), 1.0)
    queue.withdraw(ticket)
    queue.withdraw(ticket)
    assert queue.next_turn(9.0) is None


# -- who may tell -------------------------------------------------------------------------------


def test_alone_an_answer_on_its_way_may_tell_and_nobody_else():
    router = a_router(3)
    request = going_on(name_key("resp_1"))
    assert router.awaited.offer(request, 0.0) is None
    keeps = a_request(kind=RequestKind.RESPONSES, keeping=Keeping(keeps_answer=True))
    decision = router.route(keeps, request_id="", at_s=0.0)
    ticket = router.awaited.offer(request, 0.1)
    assert ticket is not None
    router.kept(KeptAnswer(decision.decision_id, 0.15, "resp_1", KeptState.ENDED, decision.address))
    assert router.awaited.next_turn(0.15) is ticket
    assert router.awaited.offer(request, 0.2) is None


def test_other_replicas_may_tell_as_long_as_they_are_heard_of():
    router = a_router(3)
    address = router.fleet.endpoints[0].address
    router.fleet.peers.sent("other", PeerRequest("k", a_request(a_prompt(9)), address, 9.0, 0.0))
    assert router.awaited.is_owed("resp_1")
    assert not router.awaited.is_owed("")
    router.fleet.peers.drop("other")
    assert not router.awaited.is_owed("resp_1")


def test_what_another_replica_decided_on_is_for_that_to_remember():
    """Every chat has an id; who decided knows whether it was asked to be kept."""
    router = a_router(3)
    address = router.fleet.endpoints[1].address
    for number in range(20):
        told = (0.0, f"chatcmpl-{number}", KeptState.ENDED, address)
        router.kept(KeptAnswer("pool.elsewhere", *told))
        chat = router.route(a_request(), request_id="", at_s=0.0)
        router.kept(KeptAnswer(chat.decision_id, *told))
    assert not list(router.kept_answers.recent(10))
