"""The real service dies, freezes, stops and returns under load: no client request fails."""

from __future__ import annotations

import json
from typing import Any

import pytest

from process_stack import running_processes
from service_faults import freeze_and_thaw, go_on, kill, restart, stop
from steady_load import SteadyLoad
from waiting import until
from wheels import NEWEST, NEWEST_FIRST

N_REQUESTS = 2000


@pytest.mark.timeout(180)
@pytest.mark.parametrize("wheel", NEWEST_FIRST)
async def test_no_client_fails_while_the_service_dies_freezes_stops_and_returns(tmp_path, wheel):
    measured: dict[str, Any] = {}
    async with running_processes(tmp_path, wheel.file, binary=wheel.binary) as stack:
        async with SteadyLoad(stack.envoy.url) as load:
            measured["at first"] = await go_on(stack, load)
            measured["killed"] = await kill(stack, load)
            measured["restarted"] = await restart(stack, load)
            measured["frozen"] = await freeze_and_thaw(stack, load)
        # What it decided for requests that had gone on without it is given back too.
        await until(stack.nothing_is_open)
        assert await stack.service.metric("lodestar_stream_failures_total") == 0
        async with SteadyLoad(stack.envoy.url) as rest:
            measured["stopped"] = await stop(stack, rest)
            if wheel is NEWEST:
                await until(lambda: len(load.ended) + len(rest.ended) >= N_REQUESTS, 60.0)
    sent = [*load.ended, *rest.ended]
    print(json.dumps(measured | {"requests": len(sent)}, indent=1))
    assert not [each for each in sent if each.problem]
    assert len({each.served_by for each in sent}) == len(stack.engines)
