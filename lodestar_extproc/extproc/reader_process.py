"""ReaderProcess: a process beside the service that reads long bodies for it.

Python runs one thread at a time: what reads a body of 10 MB here keeps others from their turn for
as long. It knows processes and their ends; what is read is `reader_main.py`'s.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from lodestar_extproc.extproc.budget import MAX_WAIT_S, Limit, OverBudget
from lodestar_extproc.extproc.events import Content
from lodestar_extproc.extproc.reader_frames import (
    READY,
    LineEnded,
    Reading,
    body_head,
    receive_answer,
)
from lodestar_extproc.request import RequestKind

COMMAND = (sys.executable, "-m", "lodestar_extproc.extproc.reader_main")
HUNG_S = 2.0
"""No answer for so long, when `MAX_WORK_S` bounds the work: it was stopped, or waits for a disk. A
judgement: ten times that."""
LOOK_S = 1.0
"""Between looks for that."""


class ReaderEnded(Exception):  # noqa: N818  (the condition's name)
    """The process came to an end that nobody asked for."""


class ReaderProcess:
    """One process, begun when it is first wanted.

    Args:
        command: what to run; it does as `reader_main.py`.
        clock: monotonic seconds.
    """

    def __init__(
        self, command: Sequence[str] = COMMAND, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._command = command
        self._clock = clock
        self._wanted = asyncio.Event()
        self._line: socket.socket | None = None
        # A thread waits for the process without holding up others; one keeps bodies in their order.
        self._thread = ThreadPoolExecutor(1, "reader")
        self._began_at_s: float | None = None

    def want(self) -> None:
        """Long bodies are coming. Idempotent."""
        self._wanted.set()

    @property
    def is_ready(self) -> bool:
        """Whether it takes bodies."""
        return self._line is not None

    async def run(self) -> None:
        """Wait until it is wanted, and see to it until cancelled.

        Raises:
            OSError: it cannot be begun.
            ReaderEnded: it ended.
        """
        await self._wanted.wait()
        line, its_end = socket.socketpair()
        with line, its_end:
            begun = asyncio.create_task(asyncio.to_thread(self._begin, its_end))
            try:
                process = await asyncio.shield(begun)
                its_end.close()
                loop = asyncio.get_running_loop()
                if await loop.run_in_executor(self._thread, line.recv, len(READY)) == READY:
                    self._line = line
                await self._watch(process)
            finally:
                self._line = None
                # Whoever waits for an answer learns that none will come.
                line.shutdown(socket.SHUT_RDWR)
                process = await begun
                process.kill()
                process.wait()

    def _begin(self, its_end: socket.socket) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603  (ourselves)
            self._command,
            stdin=its_end.fileno(),
            stdout=its_end.fileno(),
            # What a terminal tells the service to do is for the service to do.
            start_new_session=True,
        )

    async def _watch(self, process: subprocess.Popen[bytes]) -> None:
        ended = asyncio.create_task(asyncio.to_thread(process.wait))
        try:
            while not ended.done():
                await asyncio.wait([ended], timeout=LOOK_S)
                began_at_s = self._began_at_s
                if began_at_s is not None and self._clock() - began_at_s > HUNG_S:
                    process.kill()
        finally:
            ended.cancel()
        raise ReaderEnded(f"the reader process ended with status {process.returncode}")

    async def read(self, body: Content, kind: RequestKind) -> Reading | None:
        """What *body* says, or that this takes too long; None where there is no process to tell."""
        loop, line = asyncio.get_running_loop(), self._line
        if line is None:
            return None
        work = loop.run_in_executor(self._thread, self._ask, line, body, kind)
        try:
            return await asyncio.wait_for(work, MAX_WAIT_S)
        except TimeoutError:
            return OverBudget(Limit.TIME)

    def _ask(self, line: socket.socket, body: Content, kind: RequestKind) -> Reading | None:
        """In the thread: ask, and wait for the answer."""
        self._began_at_s = self._clock()
        try:
            # Each call gives up the interpreter's lock, and has to wait for it afterwards.
            head = body_head(body, kind)
            n_sent = line.sendmsg((head, body))
            if n_sent < len(head) + len(body):  # a signal came
                line.sendall(memoryview(head + body)[n_sent:])
        except OSError:  # it had ended before it knew this body
            return None
        else:
            return self._answer(line)
        finally:
            self._began_at_s = None

    @staticmethod
    def _answer(line: socket.socket) -> Reading:
        try:
            return receive_answer(lambda n_bytes: line.recv(n_bytes, socket.MSG_WAITALL))
        except (LineEnded, OSError):
            # This body may be what ended it, and is not to be read here.
            return OverBudget(Limit.PROCESS)
