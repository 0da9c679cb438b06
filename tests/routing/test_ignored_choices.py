"""An Envoy that goes elsewhere than it is told: counted, and no endpoint's fault."""

import pytest

from builders import Recorder, a_request, a_router
from lodestar_extproc.completion import Completion, FirstToken, Outcome
from lodestar_extproc.fleet.health_state import HealthState
from lodestar_extproc.routing.choice_use import SURE_AFTER


class Gateway:
    """Asks, and says what became of it."""

    def __init__(self, **settings) -> None:
        self.heard = Recorder()
        self.router = a_router(3, policy="round_robin", listeners=[self.heard], **settings)
        self.now_s = 0.0

    def ask(self, *, place=0, attempts: int | None = 1, first_token=True):
        """One request that the *place*th of its choices served."""
        self.now_s += 1.0
        decision = self.router.route(a_request(), request_id="", at_s=self.now_s)
        served = decision.addresses[place]
        self.now_s += 0.5
        if first_token:
            self.router.first_token(FirstToken(decision.decision_id, self.now_s, served))
        state_meanwhile = self.state(decision.address)
        self.now_s += 0.5
        self.router.complete(
            Completion(
                self.now_s,
                Outcome.SERVED,
                decision_id=decision.decision_id,
                served=served,
                attempts=attempts,
                response_code=200,
            )
        )
        return decision, state_meanwhile

    def state(self, address) -> HealthState:
        return self.router.fleet.health.state(address, self.now_s)

    def n_ignored(self) -> int:
        return sum(request.is_ignored for request in self.heard.ended_requests)


@pytest.mark.parametrize("first_token", [True, False])
@pytest.mark.parametrize("place", [1, 2])
def test_one_attempt_elsewhere_is_an_ignored_choice_and_blames_nobody(place, first_token):
    gateway = Gateway()
    gateway.ask(place=place, first_token=first_token)

    assert gateway.n_ignored() == 1
    for endpoint in gateway.router.fleet.endpoints:
        assert gateway.state(endpoint.address) is HealthState.HEALTHY
    assert gateway.router.fleet.health.all_healthy


def test_from_then_on_first_tokens_blame_nobody_either():
    gateway = Gateway()
    gateway.ask(place=1)
    for i in range(30):
        _, meanwhile = gateway.ask(place=i % 3)
        assert meanwhile is HealthState.HEALTHY

    assert gateway.n_ignored() == 21


def test_two_attempts_are_a_retry_and_blame_the_first():
    gateway = Gateway()
    _, meanwhile = gateway.ask(place=1, attempts=2)

    assert gateway.n_ignored() == 0
    assert meanwhile is HealthState.EJECTED


def test_a_retry_is_one_again_once_choices_are_used_again():
    gateway = Gateway()
    gateway.ask(place=1)
    _, meanwhile = gateway.ask(place=1, attempts=2)
    assert meanwhile is HealthState.HEALTHY
    for _ in range(SURE_AFTER):
        gateway.ask()
    _, meanwhile = gateway.ask(place=1, attempts=2)
    assert meanwhile is HealthState.EJECTED


def test_where_nobody_tells_the_attempts_a_first_token_blames_as_before():
    gateway = Gateway()
    _, meanwhile = gateway.ask(place=1, attempts=None)

    assert meanwhile is HealthState.EJECTED
    assert gateway.n_ignored() == 0


def test_in_a_shadow_nothing_is_ignored():
    gateway = Gateway(shadow=True)
    gateway.ask(place=1)

    assert gateway.n_ignored() == 0
