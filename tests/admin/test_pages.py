"""Long pages are made one at a time, in pieces between which requests come."""

import asyncio
import json
import math

import pytest

from lodestar_extproc.admin.pages import ITEMS, PagesInTurn, listed, with_list


@pytest.mark.parametrize("n", [0, 1, ITEMS, 3 * ITEMS + 1])
def test_a_list_in_pieces_is_the_list(n):
    items = [{"i": i, "unknown": math.nan} for i in range(n)]
    pieces = list(with_list({"a": 1}, "items", items))
    told = json.loads(b"".join(pieces))
    assert told == {"a": 1, "items": [{"i": i, "unknown": None} for i in range(n)]}
    assert len(pieces) == 2 + math.ceil(n / ITEMS)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_objects_in_pieces_are_a_list_of_them(n):
    objects = (with_list({}, "b", [{"c": i}]) for i in range(n))
    assert json.loads(b"".join(listed(objects))) == [{"b": [{"c": i}]} for i in range(n)]


async def test_others_have_their_turn_between_any_two_pieces_and_pages_wait_for_each_other():
    happened: list[str] = []

    def pieces(name):
        for i in range(3):
            happened.append(f"{name}{i}")
            yield name.encode()

    async def request() -> None:
        for _ in range(3):
            happened.append("request")
            await asyncio.sleep(0)

    pages = PagesInTurn()
    whole = await asyncio.gather(pages.whole(pieces("a")), pages.whole(pieces("b")), request())
    assert whole[:2] == [b"aaa", b"bbb"]
    assert [each for each in happened if each != "request"] == ["a0", "a1", "a2", "b0", "b1", "b2"]
    assert happened[:4] == ["a0", "request", "a1", "request"]
