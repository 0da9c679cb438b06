"""The same chats as text over HTTP and as block ids in virtual time."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import aiohttp
import orjson

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from virtual_chats import VirtualChats

from lodestar_extproc.evaluation.chats import MIXES, ChatKind, Chats
from lodestar_extproc.evaluation.load import request_body
from lodestar_extproc.simulator.accelerators import ACCELERATORS
from lodestar_extproc.simulator.engine import Engine
from lodestar_extproc.simulator.instances import ServingOptions, serving

MIX = replace(
    MIXES["mixed"],
    rate_per_s=6.0,
    system_tokens=200,
    n_system_prompts=2,
    document_tokens=(300, 500),
    output_tokens=(3, 20),
    think_s=1.5,
)
CHATS = Chats(MIX, seed=4, duration_s=8.0)


async def test_a_server_counts_and_caches_what_the_virtual_engine_does():
    spec = ACCELERATORS["h100"]
    engine, virtual = Engine(spec), []
    for number, request in enumerate(VirtualChats(CHATS)):
        engine.submit(
            number, request.block_ids, request.prompt_tokens, request.output_tokens, 100.0 * number
        )
        cached = engine.advance(math.inf)[-1].cached_tokens
        virtual.append((request.prompt_tokens, request.output_tokens, cached))
    async with (
        serving([spec], ServingOptions(speed=50.0)) as (server,),
        aiohttp.ClientSession() as session,
    ):
        url = f"http://{server.address}/v1/chat/completions"
        real = [await usage(session, url, arrival) for arrival in CHATS]
    assert virtual == real
    assert sum(cached for _, _, cached in real) > 1000


async def usage(session, url, arrival):
    body = orjson.loads(request_body(arrival, "llama-3.1-8b")) | {"stream": False}
    async with session.post(url, json=body) as response:
        counts = orjson.loads(await response.read())["usage"]
    cached = counts["prompt_tokens_details"]["cached_tokens"]
    return counts["prompt_tokens"], counts["completion_tokens"], cached


def test_arrivals_are_those_of_the_seed():
    first = [(a.at_s, a.messages, a.output_tokens) for a in CHATS]
    assert first == [(a.at_s, a.messages, a.output_tokens) for a in CHATS]
    other = Chats(MIX, seed=5, duration_s=8.0)
    assert first != [(a.at_s, a.messages, a.output_tokens) for a in other]
    assert [at_s for at_s, _, _ in first] == sorted(at_s for at_s, _, _ in first)


def test_a_mix_has_its_rate_and_its_kinds():
    arrivals = list(Chats(replace(MIX, rate_per_s=20.0), seed=1, duration_s=60.0))
    assert 0.75 < len(arrivals) / 1200 < 1.15
    for kind, ratio in ((ChatKind.CHAT, 0.6), (ChatKind.DOCUMENT, 0.15), (ChatKind.QUESTION, 0.25)):
        assert abs(sum(a.kind is kind for a in arrivals) / len(arrivals) - ratio) < 0.08


def test_named_mixes_send_what_their_names_say():
    for name, kind in (("chats", ChatKind.CHAT), ("documents", ChatKind.DOCUMENT)):
        kinds = {a.kind for a in Chats(MIXES[name], seed=1, duration_s=5.0)}
        assert kinds == {kind}
