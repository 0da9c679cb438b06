import random

import numpy as np
import orjson
import pytest

from builders import a_prompt, a_request, an_ended_request
from lodestar_extproc.completion import Completion, FirstToken, Outcome
from lodestar_extproc.features import FEATURES
from lodestar_extproc.journal.entry import entry, header_line, line
from lodestar_extproc.request import hash_blocks
from metrics_world import World

SALT = b"s" * 16


def a_line(decision, first_token=None, salt: bytes = SALT, outcome=Outcome.SERVED, **changes):
    """What is written of *decision*, whose request ended 2 s later, at 1000.0 wall time."""
    values = {"decision_id": decision.decision_id} | changes
    completion = Completion(decision.at_s + 2.0, outcome, **values)
    request = an_ended_request(decision, completion, first_token)
    return orjson.loads(line(entry(request, 1000.0), salt))


def test_a_line_says_what_was_decided_and_when():
    decision = World(policy="random", shadow_policies=("round_robin",)).decide("r")

    written = a_line(decision)
    assert written["decision_id"] == decision.decision_id
    assert written["request_id"] == "r"
    assert (written["policy"], written["reason"]) == ("random", "policy")
    assert written["propensity"] == pytest.approx(1 / 3)
    assert written["wall_s"] == 998.0
    assert written["at_s"] == decision.at_s
    assert written["shadows"] == {"round_robin": 0}
    assert [written["addresses"][i] for i in written["order"]] == list(decision.addresses)


def test_a_line_holds_every_candidate():
    world = World(burn_in_samples=1)
    world.serve(10)
    world.scraped(running_requests=2.0)
    decision = world.decide()

    written = a_line(decision)
    candidates = decision.candidates
    np.testing.assert_allclose(written["features"], candidates.features.values, rtol=1e-6)
    assert len(written["features"][0]) == len(FEATURES)
    assert written["predicted_ttft_s"] == decision.ranking.predicted_ttft_s.tolist()
    assert written["matched_tokens"] == candidates.matched_tokens.tolist()
    assert written["snapshot"]["running_requests"] == [2.0, None, None]
    assert written["accelerators"] == ["default"] * 3


def test_a_line_says_what_followed():
    decision = World(policy="random").decide()
    first_token = FirstToken(decision.decision_id, decision.at_s + 0.5, served="10.0.0.2:8000")

    written = a_line(
        decision, first_token, attempts=2, ttft_s=0.4, response_code=200, output_tokens=7
    )
    assert written["ttft_s"] == 0.5
    assert written["envoy_ttft_s"] == 0.4
    assert written["served"] == "10.0.0.2:8000"
    assert (written["outcome"], written["attempts"], written["used"]) == ("served", 2, True)
    assert written["usage"]["output_tokens"] == 7
    assert written["label"] == "end"


def test_the_beginning_of_a_body_is_no_first_token_after_a_keep_alive():
    decision = World(policy="random").decide()
    first_token = FirstToken(decision.decision_id, decision.at_s + 0.5, body_began_before=True)

    assert a_line(decision, first_token, ttft_s=0.1)["envoy_ttft_s"] is None


@pytest.mark.parametrize(
    ("outcome", "decision_id", "used"),
    [(Outcome.SERVED, "", False), (Outcome.EXPIRED, "x", True), (Outcome.FAILED, "x", True)],
)
def test_a_choice_that_envoy_did_not_wait_for_is_told_from_the_others(outcome, decision_id, used):
    decision = World(policy="random").decide()

    written = a_line(decision, outcome=outcome, decision_id=decision_id)
    assert written["used"] is used


def test_no_byte_of_a_prompt_is_written():
    prompt = b"a very secret prompt about nothing at all " * 30
    decision = World(policy="random").decide(prompt=prompt)
    ended = an_ended_request(decision, Completion(decision.at_s, Outcome.SERVED))

    written = line(entry(ended, 0.0), SALT)
    assert b"secret" not in written
    for block_hash in hash_blocks(prompt):
        assert str(block_hash).encode() not in written
        assert f"{block_hash:x}".encode() not in written


def test_prompts_that_share_a_beginning_share_its_hashes_and_no_more():
    world, shared = World(policy="random"), a_prompt(16 * 8)
    one, other = (
        a_line(world.decide(prompt=shared + a_prompt(16 * 8, seed)))["request"]["prefix_hashes"]
        for seed in (1, 2)
    )

    assert [length for length, _ in one] == [1, 2, 4, 8, 16]
    assert one[:4] == other[:4]
    assert one[4] != other[4]


def test_another_salt_gives_other_hashes():
    decision = World(policy="random").decide()
    one, other = (
        a_line(decision, salt=salt)["request"]["prefix_hashes"] for salt in (SALT, b"t" * 16)
    )

    assert [length for length, _ in one] == [length for length, _ in other]
    assert not {h for _, h in one} & {h for _, h in other}


@pytest.mark.parametrize("n_blocks", [0, 1, 2, 3, 7, 8, 9, 5000])
def test_the_longest_prefix_is_the_whole_prompt(n_blocks):
    hashes = tuple(random.Random(n_blocks).getrandbits(64) for _ in range(n_blocks))
    world = World(policy="random")
    decision = world.router.route(a_request(block_hashes=hashes), request_id="", at_s=world.now_s)

    lengths = [length for length, _ in a_line(decision)["request"]["prefix_hashes"]]
    assert lengths == sorted(set(lengths))
    assert lengths[-1:] == ([n_blocks] if n_blocks else [])
    assert len(lengths) <= 14


def test_the_header_names_the_features():
    header = orjson.loads(header_line(5.0))

    assert header == {"journal": 2, "opened_s": 5.0, "features": list(FEATURES)}
