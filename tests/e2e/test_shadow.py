"""Shadow mode: Envoy balances as before, and Lodestar learns from it."""

from __future__ import annotations

import asyncio

import pytest

from envoy_process import patient
from lodestar_extproc.completion import Outcome
from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.names import DESTINATION
from simulated_stack import simulated_stack
from stack import CHAT, chat, running_stack
from waiting import until

N_REQUESTS = 20


@pytest.mark.parametrize("file", ["shadow.yaml", "envoy.yaml", "variants/header.yaml"])
async def test_the_choice_stays_here_whatever_the_cluster_would_do_with_it(tmp_path, file):
    settings = PoolSettings(shadow=True)
    async with running_stack(tmp_path, file, settings=settings, edit=patient) as stack:
        answers = [await stack.post(chat()) for _ in range(N_REQUESTS)]
        # Had one been chosen, it would have answered all.
        assert set(answers) == {(200, engine.stream()) for engine in stack.engines}
        seen = [seen for engine in stack.engines for seen in engine.seen if seen[0] == CHAT]
        assert not [headers for _, headers, _ in seen if DESTINATION in headers]

        by_answer = {engine.stream(): engine.address for engine in stack.engines}
        served = [by_answer[answer] for _, answer in answers]
        await until(lambda: len(stack.routers.completions) == N_REQUESTS)
        await until(lambda: len(stack.routers.first_tokens) == N_REQUESTS)
        assert [end.served for end in stack.routers.completions] == served
        assert [event.served for event in stack.routers.first_tokens] == served
        ids = [f"pool.{1 + i}" for i in range(N_REQUESTS)]
        assert [end.decision_id for end in stack.routers.completions] == ids
        assert {end.outcome for end in stack.routers.completions} == {Outcome.SERVED}


async def test_it_learns_every_engine_from_what_envoy_sent_there(tmp_path):
    settings = {"policy": "learned", "shadow": True}
    async with simulated_stack(tmp_path, "shadow.yaml", edit=patient, **settings) as stack:

        async def enough_is_learned() -> bool:
            await asyncio.gather(*(stack.ask() for _ in range(8)))
            await until(lambda: stack.router.n_open == 0)
            return stack.router.learner.status().n_samples >= 60

        # Where the observer was late, on a busy machine, nothing is learned: then ask again.
        await until(enough_is_learned)
        learned = stack.router.learner.status()
        assert {e.address for e in learned.endpoints} == {e.address for e in stack.engines}
        assert min(e.n_samples for e in learned.endpoints) >= 10
        assert learned.error_ratio is not None
        # Nobody is blamed for what Envoy did not ask it, and nothing stays counted.
        assert stack.router.fleet.health.all_healthy
        assert stack.router.fleet.everything(0.0).in_flight.sum() == 0
