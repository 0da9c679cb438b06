"""Ends and the word that an observer has ended go to whoever decided; he alone holds the one for the
other."""

from __future__ import annotations

import pytest

from lodestar_extproc.completion import Completion, Outcome
from lodestar_extproc.extproc.heard_ends import HeardEnds

OURS, ANOTHERS = "pool.1", "pool.2"


def an_end(decision_id: str) -> Completion:
    return Completion(5.0, Outcome.SERVED, decision_id, served="10.0.0.1:8000", response_code=200)


class Others:
    """They decided on all but one request."""

    def __init__(self) -> None:
        self.observed_ids: list[str] = []

    def is_ours(self, own_id: str) -> bool:
        return own_id == OURS

    def observed(self, decision_id: str) -> None:
        self.observed_ids.append(decision_id)


@pytest.fixture
def others() -> Others:
    return Others()


@pytest.fixture
def told() -> list[Completion]:
    return []


@pytest.fixture
async def heard(told, others) -> HeardEnds:
    ends = HeardEnds(told.append, others)
    ends.observed(OURS)  # there is an observer: from now on ends wait for it
    ends.end(an_end(OURS))
    told.clear()
    return ends


async def test_the_end_of_our_own_request_waits_for_its_observer(heard, told):
    heard.end(an_end(OURS))
    assert not told

    heard.observed(OURS)
    assert told == [an_end(OURS)]


async def test_the_end_of_anothers_request_is_passed_on_at_once(heard, told):
    heard.end(an_end(ANOTHERS))

    assert told == [an_end(ANOTHERS)]


async def test_an_observer_of_anothers_request_is_told_to_it_and_waited_for_by_it(
    heard, told, others
):
    heard.observed(ANOTHERS)

    assert others.observed_ids == [ANOTHERS]
    assert not told


async def test_ours_may_be_told_of_by_others_in_either_order(heard, told):
    heard.ours.end(an_end(OURS))
    heard.ours.observed(OURS)
    heard.ours.observed(OURS)
    heard.ours.end(an_end(OURS))

    assert told == [an_end(OURS), an_end(OURS)]
