"""The metric pages of real engines: what is read of them is had alone."""

from __future__ import annotations

import pytest

from lodestar_extproc.fleet.engine_metrics import PageReader, names_read
from lodestar_extproc.fleet.page_url import PageUrl

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(300),
    pytest.mark.asyncio(loop_scope="session"),
]


async def page_of(stack, url):
    async with stack.client.get(url) as response:
        page = await response.read()
        assert response.status == 200
    reader = PageReader("vllm")
    reader.feed(page)
    return page, reader


async def test_a_part_of_the_page_says_what_is_read_of_all_of_it(stack):
    for engine in stack.engines:
        url = PageUrl(f"{engine.plan.url}/metrics", "vllm")
        page, whole = await page_of(stack, url.whole)
        url.saw_whole(whole.names, len(page))
        part_page, part = await page_of(stack, url.part(0.0))
        if not url.suffices(part.names, len(part_page)):
            url.refuse(0.0)
            part_page, part = await page_of(stack, url.part(0.0))
        assert url.suffices(part.names, len(part_page))
        assert len(part_page) < len(page) / 8
        assert part.metrics() == whole.metrics()
        assert part.names <= names_read("vllm")
