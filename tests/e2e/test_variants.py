"""Every shipped way to wire Lodestar into Envoy: what each sees, and what it loses."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import pytest

from envoy_process import connection_manager, patient
from lodestar_extproc.completion import Outcome
from lodestar_extproc.names import DESTINATION
from stack import CHAT, chat, running_stack
from waiting import until

# File, whether it shows first tokens, whether it has an access log, whether that has a TTFT.
VARIANTS = [
    ("envoy.yaml", True, True, True),
    ("variants/streamed.yaml", True, True, True),
    ("variants/header.yaml", True, True, True),
    ("variants/observer_only.yaml", True, False, False),
    ("variants/access_log_only.yaml", False, True, True),
    ("variants/envoy_1_36.yaml", True, True, False),
]


@pytest.mark.parametrize(("file", "first_token", "access_log", "ttft"), VARIANTS)
async def test_a_variant_chooses_and_sees_what_it_says(
    tmp_path, file, first_token, access_log, ttft
):
    async with running_stack(tmp_path, file, access_log=access_log) as stack:
        a, b = stack.engines
        stack.prefer(b, a)
        b.prefill_s = 0.1
        for body, expected in ((chat(), b.stream()), (chat(stream=False), b.whole())):
            assert await stack.post(body, **{DESTINATION: a.address}) == (200, expected)
            assert b.seen[-1][1][DESTINATION] == f"{b.address},{a.address}"
            end = await stack.completion(stack.routers.last_id)
            assert (end.outcome, end.served) == (Outcome.SERVED, b.address)
            assert (end.ttft_s is not None) is ttft
        await until(lambda: len(stack.routers.first_tokens) == (2 if first_token else 0))
        assert {"protocol", "internal"}.isdisjoint(what[-1] for what in stack.listener.heard)


@pytest.mark.parametrize(("file", "first_token", "access_log", "ttft"), VARIANTS)
async def test_clients_that_leave_at_any_moment_break_nothing(
    tmp_path, file, first_token, access_log, ttft
):
    rng = random.Random(0)
    async with running_stack(tmp_path, file, access_log=access_log, edit=patient) as stack:
        for engine in stack.engines:
            engine.prefill_s, engine.between_tokens_s = 0.05, 0.02

        async def leave() -> None:
            with suppress(TimeoutError):
                await asyncio.wait_for(stack.post(chat()), rng.uniform(0, 0.2))

        await asyncio.gather(*(leave() for _ in range(100)))
        assert await stack.post(chat()) == (200, stack.engines[0].stream())
        opened = [what for what in stack.listener.heard if what[0] == "opened"]
        await until(
            lambda: len([w for w in stack.listener.heard if w[0] == "closed"]) >= len(opened)
        )
        assert {"protocol", "internal"}.isdisjoint(what[-1] for what in stack.listener.heard)
        if access_log:
            decided = {f"pool.{i + 1}" for i in range(stack.routers.n_decisions)}

            def ended() -> set[str]:
                joined = {c.decision_id for c in stack.routers.completions}
                by_stream = {c.stream_id for c in stack.routers.completions if not c.decision_id}
                lost = {
                    f"pool.{i + 1}"
                    for i, s in enumerate(stack.routers.stream_ids)
                    if s in by_stream
                }
                return joined | lost

            await until(lambda: decided <= ended())


async def test_a_client_that_leaves_mid_answer_is_told_without_an_access_log(tmp_path):
    async with running_stack(tmp_path, "variants/observer_only.yaml", access_log=False) as stack:
        stack.engines[0].between_tokens_s = 1.0
        with suppress(TimeoutError):
            await asyncio.wait_for(stack.post(chat()), 0.3)
        end = await stack.completion(stack.routers.last_id)
        assert end.outcome is Outcome.CLIENT_GONE


async def test_a_dead_edge_leaves_the_choice_to_envoy(tmp_path):
    async with running_stack(tmp_path) as stack:
        await stack.server.stop(0.0)
        answers = {await stack.post(chat()) for _ in range(20)}
        assert answers == {(200, engine.stream()) for engine in stack.engines}


async def test_without_the_receiving_namespace_the_header_is_all_that_arrives(tmp_path):
    """The trap the comment in envoy.yaml warns of: the choice is dropped silently."""

    def forget(config) -> None:
        decide = connection_manager(config)["http_filters"][0]["typed_config"]
        del decide["metadata_options"]

    async with running_stack(tmp_path, edit=forget) as stack:
        answers = {await stack.post(chat()) for _ in range(20)}
        assert answers == {(200, engine.stream()) for engine in stack.engines}
        seen = [s for e in stack.engines for s in e.seen if s[0] == CHAT]
        assert {s[1][DESTINATION] for s in seen} == {",".join(stack.routers.addresses)}
