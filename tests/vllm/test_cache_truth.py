"""What is taken to be cached just before a prompt goes, beside what a real engine then finds."""

from __future__ import annotations

import pytest
from cache_truth import PLANS, on_one_engine, total_error
from conftest import ENVIRONMENT

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

MAX_ERROR_RATIO, MAX_ERROR_RATIO_WITHOUT_USAGE = 0.02, 0.03
MIN_PROMPTS = 100


async def test_with_kv_events_what_is_matched_is_what_is_found(tmp_path):
    """Sessions that grow, four at once, on a cache that holds a third of them."""
    plans = [plan for plan in PLANS if plan.name.startswith("four at once")]
    seen = await on_one_engine(ENVIRONMENT, 0, plans, tmp_path)
    for plan in plans:
        found = seen[plan.name]
        hits = sum(f.cached for f in found) / sum(f.prompt for f in found)
        print(f"\n{plan.name}: {len(found)} prompts, {hits:.1%} found, {total_error(found):.2%}")
        assert len(found) >= MIN_PROMPTS
        assert 0.1 < hits < 0.9  # some is given up
        if plan.events:
            most = MAX_ERROR_RATIO if plan.usage_is_read else MAX_ERROR_RATIO_WITHOUT_USAGE
            assert total_error(found) <= most
