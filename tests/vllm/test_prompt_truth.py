"""What we take for a prompt, beside what a real engine counts and finds: docs/results/prompt_truth.md."""

from __future__ import annotations

import pytest
from conftest import ENVIRONMENT
from prompt_truth import GENERATES, NEAR_RATIO, POOLS, Seen, on_one_engine
from truth_cases import all_cases

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

COUNTED_OTHERWISE = {
    # Instructions of the turn before are taken until the engine is heard not to.
    "response: by its id, without the instructions before",
    # A cross-encoder reads the query with each document; this server embeds it once.
    "rerank: six documents",
    "score: one by many",
}
FOUND_OTHERWISE = {
    "response: by its id, without the instructions before",
    # The second answer finds what the first has just computed.
    "chat: two answers",
}


@pytest.mark.parametrize("pooled", [False, True])
async def test_an_engine_counts_and_finds_what_we_do(pooled, tmp_path):
    cases = [case for case in all_cases() if case.pooled is pooled]
    seen = await on_one_engine(ENVIRONMENT, 0, POOLS if pooled else GENERATES, cases, tmp_path)
    assert {each.status for each in seen} == {200}
    assert {each.case for each in seen if is_far(each)} <= COUNTED_OTHERWISE
    found = [each for each in seen if each.match_error is not None]
    assert {e.case for e in found if abs(e.match_error) > NEAR_RATIO} <= FOUND_OTHERWISE
    assert len(found) > 60 or pooled


def is_far(seen: Seen) -> bool:
    return seen.is_text and seen.count_error is not None and abs(seen.count_error) > NEAR_RATIO
