import asyncio
import logging
import threading
from pathlib import Path

import orjson

from lodestar_extproc.completion import Completion, Outcome
from lodestar_extproc.journal.journal import Journal
from lodestar_extproc.journal.journal_file import JournalFile
from metrics_world import World


class AFullDisk(JournalFile):
    """Has no room until it is told otherwise."""

    full = True

    def append(self, lines: bytes) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        super().append(lines)


class Counts(dict):
    """How many entries were written and dropped."""

    def __call__(self, result: str, n: int) -> None:
        self[result] = self.get(result, 0) + n


def a_world(file: JournalFile, **changes) -> tuple[World, Journal, Counts]:
    counts = Counts()
    values = {"count": counts, "interval_s": 0.01, "wall_clock": lambda: 1000.0}
    journal = Journal(file, **values | changes)
    return World(listeners=[journal], policy="random"), journal, counts


def lines(path: Path) -> list[dict]:
    found = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    return [line for line in found if "journal" not in line]


async def until_written(counts: Counts, n: int) -> None:
    async with asyncio.timeout(60):
        while sum(counts.values()) < n:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_every_request_that_ended_is_a_line(tmp_path):
    world, journal, counts = a_world(JournalFile(tmp_path / "j"))
    async with journal.running():
        world.serve(600, ttft_s=0.25)
        world.decide()  # has not ended
        await until_written(counts, 600)

    written = lines(tmp_path / "j")
    assert len(written) == 600
    assert counts == {"written": 600}
    assert {line["ttft_s"] for line in written} == {0.25}
    assert [line["at_s"] for line in written] == sorted(line["at_s"] for line in written)


async def test_what_is_left_is_written_at_the_end(tmp_path):
    world, journal, _ = a_world(JournalFile(tmp_path / "j"), interval_s=3600.0)
    async with journal.running():
        world.serve(3)

    assert len(lines(tmp_path / "j")) == 3


async def test_an_end_without_a_first_token_is_a_line_too(tmp_path):
    world, journal, _ = a_world(JournalFile(tmp_path / "j"))
    async with journal.running():
        world.end(world.decide(), Outcome.FAILED)

    [line] = lines(tmp_path / "j")
    assert (line["outcome"], line["ttft_s"]) == ("failed", None)


async def test_more_than_may_wait_is_dropped_and_counted(tmp_path):
    world, journal, counts = a_world(JournalFile(tmp_path / "j"), max_waiting=5)
    async with journal.running():
        world.serve(8)

    assert counts == {"dropped": 3, "written": 5}
    assert len(lines(tmp_path / "j")) == 5


async def test_a_full_disk_is_told_once_and_survived(tmp_path, caplog):
    file = AFullDisk(tmp_path / "j")
    world, journal, counts = a_world(file)
    with caplog.at_level(logging.WARNING):
        async with journal.running():
            for n in (1, 2, 3):
                world.serve()
                await until_written(counts, n)
            file.full = False
            world.serve()
            await until_written(counts, 4)

    assert counts == {"dropped": 3, "written": 1}
    assert [record.message.split(": ", 1)[1] for record in caplog.records] == [
        "not written: [Errno 28] No space left on device",
        "written again",
    ]
    assert len(lines(tmp_path / "j")) == 1


async def test_a_folder_that_is_not_there_is_survived(tmp_path, caplog):
    world, journal, counts = a_world(JournalFile(tmp_path / "missing" / "j"))
    async with journal.running():
        world.serve(2)

    assert counts == {"dropped": 2}
    assert "missing" in caplog.text


def test_nothing_is_kept_of_a_request_that_has_ended(tmp_path):
    world, journal, _ = a_world(JournalFile(tmp_path / "j"), max_waiting=1)
    world.serve(5)
    decision = world.decide()
    world.router.complete(
        Completion(world.now_s, Outcome.EXPIRED, decision_id=decision.decision_id)
    )

    [entry] = journal._waiting
    assert entry.request.decision.candidates.request.block_hashes == ()


class AHungDisk(JournalFile):
    """Answers nothing until it is told to."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.thaw = threading.Event()

    def append(self, lines: bytes) -> None:
        self.thaw.wait(60)
        super().append(lines)


async def test_a_disk_that_hangs_holds_up_the_end_no_longer_than_it_may(tmp_path, caplog):
    file = AHungDisk(tmp_path / "j")
    world, journal, _ = a_world(file, last_write_s=0.1)
    async with asyncio.timeout(30), journal.running():
        world.serve(3)
    assert "not written to its end" in caplog.text
    file.thaw.set()


async def test_an_entry_of_which_no_line_can_be_made_costs_itself_only(tmp_path, monkeypatch):
    world, journal, counts = a_world(JournalFile(tmp_path / "j"))
    made = iter([b"one\n", TypeError("Integer exceeds 64-bit range"), b"three\n"])

    def line_or_error(*_: object) -> bytes:
        each = next(made)
        if isinstance(each, Exception):
            raise each
        return each

    monkeypatch.setattr("lodestar_extproc.journal.journal.line", line_or_error)
    async with journal.running():
        world.serve(3)
        await until_written(counts, 3)
    assert counts == {"written": 2, "dropped": 1}
