"""What an engine's blocks say of prompts without usage teaches the pool what a token's bytes are."""

import pytest

from builders import a_prompt, a_request, a_router, an_endpoint
from lodestar_extproc.completion import Completion, Outcome
from lodestar_extproc.fleet.kv_events.events import BlocksStored

HOME = an_endpoint(1)
BLOCKS, SIZE = 100, 16


@pytest.mark.parametrize(("is_plain", "learned"), [(True, True), (False, False)])
def test_bytes_of_a_token_are_learned_from_blocks_where_no_usage_tells(is_plain, learned):
    router = a_router(1)
    before = router.bytes_per_token("m")
    for n in range(60):
        prompt = a_prompt(1000, seed=n)
        request = a_request(prompt, model="m", prompt_tokens=len(prompt) / before)
        decision = router.route(
            request._replace(is_plain=is_plain), request_id=f"r{n}", at_s=float(n)
        )
        hashes = [1000 * n + i for i in range(BLOCKS)]
        stored = BlocksStored(hashes, None, SIZE)
        router.fleet.record_cache_events(HOME.address, [stored], n + 0.1)
        router.complete(
            Completion(n + 0.2, Outcome.SERVED, decision_id=decision.decision_id, response_code=200)
        )
    true = len(prompt) / (BLOCKS * SIZE + SIZE / 2)
    assert abs(before - true) > 1.0
    now = router.bytes_per_token("m")
    assert now == (pytest.approx(true, rel=0.02) if learned else before)
