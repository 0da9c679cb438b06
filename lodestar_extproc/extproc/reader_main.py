"""The reader process: reads long bodies beside the service, so that no request waits for another's.

Bodies come by its input, and what they say goes by its output; it ends when its input does, and so
with the service. It loads what reading needs and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator

from lodestar_extproc.allocator import give_back_long_memory
from lodestar_extproc.extproc.body_reading import (
    InvalidRequest,
    OverBudget,
    ParsedBody,
    reading,
)
from lodestar_extproc.extproc.budget import MAX_WORK_S, Limit
from lodestar_extproc.extproc.reader_frames import READY, LineEnded, Reading, answer, receive_body

USUAL_BYTES, KEPT_BYTES = 8 * 2**20, 16 * 2**20
"""Of one body, and for the few copies of it that reading makes.

Bodies come one after another, and most are as long as the one before: memory that is asked for anew
each time costs more than half of what reading does. A judgement."""


def read_in_time(
    steps: Generator[None, None, ParsedBody], clock: Callable[[], float] = time.process_time
) -> Reading:
    """Read a body in one go, within the work of one body; who asked waits no longer than it may."""
    until_s = clock() + MAX_WORK_S
    try:
        while clock() < until_s:
            next(steps)
    except StopIteration as end:
        done: Reading = end.value
        return done
    except (InvalidRequest, OverBudget) as error:
        return error
    return OverBudget(Limit.TIME)


def main() -> None:
    """Read bodies until there are no more."""
    give_back_long_memory(USUAL_BYTES, kept_bytes=KEPT_BYTES)
    with open(0, "rb") as bodies, open(1, "wb", buffering=0) as answers:
        answers.write(READY)
        try:
            while True:
                answers.write(answer(read_in_time(reading(*receive_body(bodies.read)))))
        except (LineEnded, BrokenPipeError):
            return


if __name__ == "__main__":
    main()
