"""Answers that one engine keeps, through a real Envoy: any worker finds them, and a new one too."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack

import aiohttp
import pytest
import pytest_asyncio

from envoy_process import EnvoyProcess, cluster_of, envoy_config, patient
from keeping_engine import KeepingEngine
from ports import a_port
from process_stack import Service
from replica_stack import entry_of
from waiting import until
from worker_stack import running_workers

pytestmark = [pytest.mark.long, pytest.mark.timeout(180)]
RESPONSES = "/v1/responses"
N_CHATS = 12


@pytest_asyncio.fixture
async def engines():
    made = [KeepingEngine() for _ in range(3)]
    for engine in made:
        await engine.start()
    yield made
    for engine in made:
        await engine.stop()


async def respond(url: str, **fields) -> tuple[int, dict]:
    """An answer that is kept, to *fields*."""
    async with aiohttp.ClientSession() as client:
        posted = client.post(url + RESPONSES, json={"model": "m", "store": True} | fields)
        async with posted as response:
            return response.status, json.loads(await response.read())


async def go_on(url: str, ids: list[str]) -> tuple[list[int], list[str]]:
    """The next turn of every conversation, at once; the codes of the answers, and their ids."""
    answers = await asyncio.gather(
        *(respond(url, previous_response_id=each, input="and then?") for each in ids)
    )
    return [code for code, _ in answers], [answer.get("id", "") for _, answer in answers]


async def test_every_turn_finds_its_engine_whichever_worker_decides(tmp_path, engines):
    addresses = [engine.address for engine in engines]
    workers = running_workers(tmp_path, addresses_each=True, engines_at=addresses)
    async with workers as stack:
        url, codes = stack.envoy.url, []
        ids = [(await respond(url, input=f"chat {i}"))[1]["id"] for i in range(N_CHATS)]
        for _ in range(4):  # an agent goes on at once, before all have heard of the answer
            found, ids = await go_on(url, ids)
            codes += found
        decided = await stack.decided()
    assert min(decided) > 5  # Envoy deals them out
    assert codes == [200] * 4 * N_CHATS


async def test_every_turn_finds_its_engine_after_a_restart(tmp_path, engines):
    port, checkpoint = a_port(), tmp_path / "learned"

    def edit(config) -> None:
        patient(config)
        entries = [{"lb_endpoints": [entry_of(port)]}]
        cluster_of(config, "lodestar")["load_assignment"]["endpoints"] = entries
        block = cluster_of(config, "engines")["metadata"]["filter_metadata"]["lodestar"]
        block["checkpoint_path"] = str(checkpoint)

    addresses = [engine.address for engine in engines]
    config = envoy_config("envoy.yaml", extproc_port=port, engines=addresses, edit=edit)
    quick = ("--drain", "0.1", "--grace", "1")
    async with AsyncExitStack() as stack:
        envoy = EnvoyProcess(config, tmp_path)
        with Service(envoy.config_file, tmp_path, a_port(), *quick) as service:
            await service.ready()
            await stack.enter_async_context(envoy)
            ids = [(await respond(envoy.url, input=f"chat {i}"))[1]["id"] for i in range(N_CHATS)]
            assert await service.terminate() == 0
        assert checkpoint.exists()
        again = tmp_path / "again"
        again.mkdir()
        with Service(envoy.config_file, again, a_port(), *quick) as service:
            await service.ready()
            await until(lambda: envoy.asks("lodestar", 1))
            codes, _ = await go_on(envoy.url, ids)
    assert codes == [200] * N_CHATS
