"""What may befall the service under load: each function does it and says what clients noticed."""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from typing import Any

from process_stack import ProcessStack
from steady_load import SteadyLoad
from waiting import until

N_STREAMS = 50
"""Answers under way at each fault."""
MESSAGE_TIMEOUT_S = 0.5
"""Of envoy/envoy.yaml: what a request waits for a frozen service."""
NOTICE_S = 1.6
"""Two health checks in a row fail: at most twice their interval and timeout."""
SLACK_S = 20.0
"""For a machine that is busy with other things."""


async def go_on(stack: ProcessStack, load: SteadyLoad, n: int = 100) -> dict[str, float]:
    """Until the service decides, then for *n* requests."""

    async def deciding() -> bool:
        n_decisions = await stack.service.metric("lodestar_decisions_total")
        return await stack.service_is_healthy() and n_decisions > 0

    begin_s = time.monotonic()
    await until(deciding)
    decides_s = time.monotonic()
    await more(load, n)
    return {"decides_after_s": round(decides_s - begin_s, 3)} | waits(load, decides_s)


async def kill(stack: ProcessStack, load: SteadyLoad) -> dict[str, float]:
    at_s = await enough_is_under_way(load)
    stack.service.kill()
    await more(load, 200)
    found = waits(load, at_s)
    # Refused connections cost nothing: nobody waits as for a frozen service.
    assert found["p50_s"] < MESSAGE_TIMEOUT_S
    return found


async def restart(stack: ProcessStack, load: SteadyLoad) -> dict[str, float]:
    at_s = time.monotonic()
    stack.service.start()
    await stack.service.ready()
    ready_s = time.monotonic()
    return {"start_s": round(ready_s - at_s, 3)} | await go_on(stack, load)


async def freeze_and_thaw(stack: ProcessStack, load: SteadyLoad) -> dict[str, Any]:
    await enough_is_under_way(load)
    await until(stack.service_is_healthy)
    timeouts_before, at_s = await stack.ext_proc("message_timeouts"), time.monotonic()
    stack.service.freeze()
    await until(lambda: unhealthy(stack), NOTICE_S + SLACK_S)
    noticed_s = time.monotonic()
    # Those who wait when it is noticed wait to the end.
    await asyncio.sleep(MESSAGE_TIMEOUT_S + 1.0)
    timeouts, unasked_s = await stack.ext_proc("message_timeouts"), time.monotonic()
    await more(load, 100)
    found = {
        "noticed_after_s": round(noticed_s - at_s, 3),
        "timeouts": timeouts - timeouts_before,
        "until noticed": waits(load, at_s, noticed_s),
        "then": waits(load, unasked_s),
    }
    assert timeouts > timeouts_before
    assert await stack.ext_proc("message_timeouts") == timeouts, "it is asked no more"
    assert found["until noticed"].get("max_s", 0.0) < MESSAGE_TIMEOUT_S + SLACK_S
    stack.service.thaw()
    found["thawed"] = await go_on(stack, load)
    return found | {"unused": await stack.service.metric("lodestar_unused_decisions_total")}


async def stop(stack: ProcessStack, load: SteadyLoad) -> dict[str, float]:
    at_s = await enough_is_under_way(load)
    assert await stack.service.terminate() == 0
    stopped_s = time.monotonic()
    await more(load, 100)
    found = waits(load, at_s)
    assert found["p50_s"] < MESSAGE_TIMEOUT_S
    return {"took_s": round(stopped_s - at_s, 3)} | found


async def unhealthy(stack: ProcessStack) -> bool:
    return not await stack.service_is_healthy()


async def enough_is_under_way(load: SteadyLoad) -> float:
    """The time at which it is."""
    await until(lambda: load.n_streaming >= N_STREAMS)
    return time.monotonic()


async def more(load: SteadyLoad, n: int) -> None:
    """Until *n* more requests have begun and ended."""
    begin_s = time.monotonic()
    await until(lambda: len(load.started_between(begin_s)) >= n)


def waits(load: SteadyLoad, begin_s: float, end_s: float = math.inf) -> dict[str, float]:
    """How long the streams asked for in that time waited for their first bytes."""
    started = load.started_between(begin_s, end_s)
    waited_s = sorted(sent.waited_s for sent in started if sent.streamed)
    if not waited_s:
        return {"streams": 0}
    return {
        "streams": len(waited_s),
        "p50_s": round(statistics.median(waited_s), 3),
        "max_s": round(waited_s[-1], 3),
        "over_0.45_s": sum(each > 0.45 for each in waited_s),
    }
