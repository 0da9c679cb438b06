import orjson
import pytest

from lodestar_extproc.admin.decision_log import DecisionLog
from lodestar_extproc.completion import Outcome
from lodestar_extproc.decision import Ranking, Reason
from metrics_world import World


def a_world(capacity: int = 256, **settings) -> tuple[World, DecisionLog]:
    log = DecisionLog(capacity)
    return World(listeners=[log], **settings), log


def test_the_newest_decision_comes_first():
    world, log = a_world(policy="random")
    ids = [world.decide().decision_id for _ in range(3)]

    assert [d["decision_id"] for d in log.last(2, world.now_s)] == ids[:0:-1]


def test_only_the_last_decisions_are_kept_and_those_whose_requests_are_open():
    world, log = a_world(4, policy="random")
    made = [world.decide() for _ in range(10)]
    ids = [each.decision_id for each in made]

    assert [d["decision_id"] for d in log.last(100, world.now_s)] == ids[::-1]
    world.end(made[-1], served=made[-1].address, duration_s=1.0)

    assert [d["decision_id"] for d in log.last(100, world.now_s)] == ids[:5:-1]
    assert log.explain(ids[0], world.now_s) is None


def test_what_followed_is_shown_beside_the_choice():
    world, log = a_world(policy="random")
    decision = world.decide()
    world.first_token(decision, 0.4, served=decision.addresses[1])
    world.end(decision, served=decision.addresses[1], duration_s=3.0)

    [shown] = log.last(1, world.now_s)
    assert shown["chosen"] == decision.addresses[0]
    assert shown["served"] == decision.addresses[1]
    assert shown["ttft_s"] == pytest.approx(0.4)
    assert shown["outcome"] == "served"
    assert shown["duration_s"] == 3.0


def test_predictions_are_shown_for_every_candidate():
    world, log = a_world(burn_in_samples=1)
    world.serve(30)
    decision = world.decide()

    shown = log.explain(decision.decision_id, world.now_s)
    predicted = decision.ranking.predicted_ttft_s
    assert shown["predicted_ttft_s"] == predicted[decision.chosen]
    assert set(shown["predicted_ttft_s_by_endpoint"]) == set(decision.addresses)
    assert [c["endpoint"] for c in shown["candidates"]] == list(decision.addresses)
    assert shown["candidates"][0]["features"]["constant"] == 1.0
    assert "Predicted TTFT" in shown["explanation"]


def test_who_predicted_is_named():
    world, log = a_world(burn_in_samples=1, predictor="auto")
    untaught = world.decide()
    world.serve(30)
    taught = world.decide()

    assert log.explain(untaught.decision_id, world.now_s)["predicted_by"] is None
    shown = log.explain(taught.decision_id, world.now_s)
    assert shown["predicted_by"] == "engine"
    assert "(predictor engine)" in shown["explanation"]


def test_a_request_is_found_by_its_own_id():
    world, log = a_world(policy="random")
    world.decide("first")
    decision = world.decide("second")

    assert log.explain("second", world.now_s)["decision_id"] == decision.decision_id


def test_an_empty_id_finds_nothing():
    world, log = a_world(policy="random")
    world.decide()

    assert log.explain("", world.now_s) is None


def test_no_long_prompt_is_kept_beyond_its_request():
    world, log = a_world(policy="random")
    decision = world.decide(prompt=b"x" * 100_000)
    world.end(decision)

    held = log._by_id[decision.decision_id].decision
    assert decision.candidates.request.block_hashes
    assert held.candidates.request.block_hashes == ()


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_is_explained(reason):
    world, log = a_world(policy="random")
    decision = world.decide()._replace(ranking=Ranking((0, 1, 2), reason=reason))
    log.decided(decision)

    explanation = log.explain(decision.decision_id, world.now_s)["explanation"]
    assert explanation.startswith("Policy random chose 10.0.0.1:8000 of 3: ")


def test_a_choice_that_came_too_late_is_said_to_be_unused():
    world, log = a_world(policy="random")
    decision = world.decide(stream_id="s")
    world.end(decision, decision_id="", stream_id="s")

    shown = log.explain(decision.decision_id, world.now_s)
    assert shown["used"] is False
    assert "did not wait" in shown["explanation"]


@pytest.mark.parametrize("outcome", list(Outcome))
def test_all_of_it_is_json(outcome):
    world, log = a_world(burn_in_samples=1, shadow_policies=("random",))
    world.serve(5)
    decision = world.decide()
    world.end(decision, outcome)

    shown = log.explain(decision.decision_id, world.now_s)
    assert orjson.loads(orjson.dumps(shown, option=orjson.OPT_SERIALIZE_NUMPY))["shadows"]
