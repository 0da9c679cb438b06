"""Who is compared with whom, and of which requests, in a router at work."""

from __future__ import annotations

from lodestar_extproc.gain.gain_watch import GainWatch
from metrics_world import World


def a_world(**settings) -> tuple[World, GainWatch]:
    watch = GainWatch(lambda: world.router.settings)
    world = World(listeners=[watch], **settings)
    return world, watch


def test_the_fallback_and_every_shadow_are_compared():
    world, watch = a_world(
        burn_in_samples=1, shadow_policies=("random",), fallback_policy="least_request"
    )
    world.serve(60)

    gains = {gain.policy: gain for gain in watch.gains()}
    assert gains.keys() == {"least_request", "random"}
    assert gains["least_request"].role == "fallback"
    assert gains["random"].role == "shadow"
    assert 40 < gains["random"].requests <= 60
    assert gains["random"].made_s == 0.5


def test_without_predictions_nothing_is_told_and_that_is_said():
    world, watch = a_world(policy="random", shadow_policies=("least_request",))
    world.serve(60)

    assert all("cannot tell" in gain.verdict for gain in watch.gains())


def test_in_shadow_what_happens_is_compared_with_what_was_decided():
    world, watch = a_world(burn_in_samples=1, shadow=True)
    world.serve(10)
    for _ in range(40):
        decision = world.decide()
        elsewhere = next(
            e.address for e in world.router.fleet.endpoints if e.address != decision.address
        )
        world.first_token(decision, 0.5, served=elsewhere)
        world.end(decision, served=elsewhere)
        world.now_s += 1.0
    (gain,) = watch.gains()

    assert (gain.policy, gain.role) == ("learned", "decided")
    assert gain.requests >= 40
    assert gain.agreement_ratio < 0.5


def test_a_request_that_a_retry_took_elsewhere_is_not_compared():
    world, watch = a_world(burn_in_samples=1)
    world.serve(10)
    before = watch.gains()[0].requests
    decision = world.decide()
    served = decision.addresses[1]
    world.first_token(decision, 0.5, served=served)
    world.end(decision, served=served, attempts=2)

    assert watch.gains()[0].requests == before


def test_a_flood_is_sampled():
    world, watch = a_world(burn_in_samples=1)
    world.serve(5)
    before = watch.gains()[0].requests
    for _ in range(100):
        decision = world.decide()
        world.first_token(decision, 0.5)
        world.end(decision)
        world.now_s += 0.001

    assert watch.gains()[0].requests <= before + 4
