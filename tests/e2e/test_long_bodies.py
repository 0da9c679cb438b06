"""Long bodies through a real Envoy, while the process that reads them is killed."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal

import aiohttp
import pytest

from process_children import children_of, is_running
from process_stack import REQUEST_TIMEOUT, ProcessStack, get, running_processes
from waiting import until

MIB = 2**20
READER = "reader_main"


async def ask(stack: ProcessStack, n_bytes: int, turn: int) -> int:
    said = f"turn {turn}: " + "The tide table of the harbour. " * (n_bytes // 31)
    messages = [{"role": "user", "content": said}]
    body = io.BytesIO(json.dumps({"model": "m", "messages": messages, "stream": False}).encode())
    async with (
        aiohttp.ClientSession(timeout=REQUEST_TIMEOUT) as session,
        session.post(f"{stack.envoy.url}/v1/chat/completions", data=body) as response,
    ):
        await response.read()
        return response.status


async def failures_of_the_reader(stack: ProcessStack) -> float:
    page = await get(f"{stack.service.url}/metrics")
    (line,) = (
        x for x in page.splitlines() if x.startswith('lodestar_task_failures_total{task="reader"')
    )
    return float(line.rpartition(" ")[2])


@pytest.mark.timeout(180)
async def test_no_long_body_is_lost_while_the_reader_is_killed_and_it_ends_with_the_service(
    tmp_path,
):
    async with running_processes(tmp_path) as stack:
        service = stack.service.pid
        assert await ask(stack, 1000, 0) == 200
        assert not children_of(service, READER)
        assert await ask(stack, MIB // 8, 1) == 200
        (first,) = await until(lambda: children_of(service, READER))
        statuses = []
        for turn in range(2, 12):
            if turn == 5:
                os.kill(first, signal.SIGKILL)
            statuses += await asyncio.gather(*(ask(stack, n * MIB, turn) for n in (1, 2, 4)))
        assert statuses == 30 * [200]
        (second,) = await until(
            lambda: [pid for pid in children_of(service, READER) if pid != first]
        )
        assert await failures_of_the_reader(stack) == 1
        assert await stack.service.metric("lodestar_stream_failures_total") == 0
        await until(stack.nothing_is_open)
        stack.service.kill()
        await until(lambda: not is_running(second))
