"""endpoints_in(): what a file of endpoints says of a pool, read here or by a process of its own.

python -m lodestar_extproc.config.endpoints_of_file

The process reads an EdsFile and a Pool, pickled, from its standard input and writes `answer`.
Pickles pass between a process and its own child alone.
"""

from __future__ import annotations

import dataclasses
import io
import pickle
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lodestar_extproc.config.errors import ConfigError
from lodestar_extproc.config.members import read_eds_assignment

if TYPE_CHECKING:
    from lodestar_extproc.config.pool import EdsFile, Pool
    from lodestar_extproc.endpoint import Endpoint

SLICE = 50
"""Endpoints in one pickle: whoever unpacks it holds up others for a quarter of a millisecond."""


def endpoints_in(eds: EdsFile, pool: Pool) -> tuple[Endpoint, ...]:
    """The endpoints of *pool* as the file names them now.

    Raises:
        ConfigError: as `read_eds_assignment`.
    """
    told = read_eds_assignment(eds)
    now = dataclasses.replace(pool, overprovisioning=told.overprovisioning)
    return now.endpoints_of(told.members)


def question(eds: EdsFile, pool: Pool) -> bytes:
    """What the process is asked."""
    return pickle.dumps((eds, pool))


def answer(asked: bytes) -> bytes:
    """What it answers: what is wrong with the file, if anything, and then slices of endpoints."""
    eds, pool = pickle.loads(asked)  # noqa: S301  (our parent asks)
    endpoints: tuple[Endpoint, ...] = ()
    wrong: dict[str, Any] | None = None
    try:
        endpoints = endpoints_in(eds, pool)
    except ConfigError as error:
        wrong = {name: getattr(error, name) for name in ("problem", "file", "line", "key")}
    slices = (endpoints[i : i + SLICE] for i in range(0, len(endpoints), SLICE))
    return b"".join(map(pickle.dumps, (wrong, *slices)))


def unpacked(answered: bytes) -> Iterator[Endpoint]:
    """The endpoints in an `answer`.

    Raises:
        ConfigError: what was wrong with the file.
    """
    told = io.BytesIO(answered)
    wrong = pickle.load(told)  # noqa: S301  (our own child answers)
    if wrong is not None:
        raise ConfigError(wrong.pop("problem"), **wrong)
    while told.tell() < len(answered):
        yield from pickle.load(told)  # noqa: S301


if __name__ == "__main__":
    sys.stdout.buffer.write(answer(sys.stdin.buffer.read()))
