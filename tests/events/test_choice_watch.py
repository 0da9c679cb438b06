"""That Envoy does not go where it is told is said once, and when it is over."""

from __future__ import annotations

from lodestar_extproc.completion import Outcome
from lodestar_extproc.events.change import ChangeKind
from lodestar_extproc.events.choice_watch import WINDOW, ChoiceWatch
from lodestar_extproc.events.event_log import EventLog
from metrics_world import World


class Pool:
    def __init__(self, **settings) -> None:
        self.log = EventLog()
        self.watch = ChoiceWatch(self.log)
        self.world = World(policy="random", listeners=[self.watch], **settings)

    def end(self, n: int, *, elsewhere: bool, attempts: int = 1) -> None:
        for _ in range(n):
            decision = self.world.decide()
            others = [e.address for e in self.world.router.fleet.endpoints]
            others.remove(decision.address)
            served = others[0] if elsewhere else decision.address
            self.world.end(decision, served=served, attempts=attempts)
            self.world.now_s += 1.0

    def told(self) -> list[ChangeKind]:
        self.watch.observe(self.world.view(), self.world.now_s)
        return [event.kind for event in reversed(self.log.last(9))]


def test_choices_that_are_ignored_are_told_once_with_both_addresses():
    pool = Pool()
    pool.end(12, elsewhere=True)

    assert pool.told() == pool.told() == [ChangeKind.CHOICES_IGNORED]
    text = pool.log.last(1)[0].text
    assert "12 of the last 12 requests went elsewhere at their first attempt" in text
    assert "lodestar-extproc check" in text
    pool.end(WINDOW, elsewhere=False)
    assert pool.told() == [ChangeKind.CHOICES_IGNORED, ChangeKind.CHOICES_FOLLOWED]


def test_few_requests_retries_and_a_few_strays_are_no_news():
    few, retried, strays = Pool(), Pool(), Pool()
    few.end(9, elsewhere=True)
    retried.end(WINDOW, elsewhere=True, attempts=2)
    strays.end(8, elsewhere=True)
    strays.end(WINDOW - 8, elsewhere=False)

    assert few.told() == retried.told() == strays.told() == []


def test_in_shadow_nobody_is_to_follow():
    pool = Pool(shadow=True)
    pool.end(WINDOW, elsewhere=True)

    assert pool.told() == []


def test_choices_that_envoy_does_not_wait_for_are_told_as_such():
    pool = Pool()
    for _ in range(12):
        decision = pool.world.decide(stream_id="s")
        pool.world.end(decision, Outcome.SERVED, decision_id="", stream_id="s", served=None)
    pool.told()

    assert "without waiting for the choice" in pool.log.last(1)[0].text
