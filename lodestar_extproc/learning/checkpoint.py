"""Checkpoints: what was learned, in a file that survives a crash at any moment.

Plain JSON under a header that says what it is; a file that does not fit is set aside, never used
in part. It does not know what is learned.

Files keep the words of version 0.1.0, so that either version reads what the other wrote: `model` is
the predictor, `pools` the accelerators of a predictor, `rivals` the experts of `auto`.
"""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path
from typing import Any, Protocol

import orjson
import xxhash

from lodestar_extproc.features import FEATURES

VERSION = 1
"""Of the format: another one is not read."""

log = logging.getLogger(__name__)


class Restorable(Protocol):
    """Whatever can give and take its state."""

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a state, or change nothing.

        Raises:
            ValueError: it is not a state of this.
        """
        ...


class CheckpointError(ValueError):
    """The file is no checkpoint of this predictor and these features."""


def write_checkpoint(path: Path, predictor: str, state: dict[str, Any]) -> None:
    """Replace the checkpoint at *path* by *state*, or leave the old one whole.

    Raises:
        OSError: the disk refuses.
        TypeError: *state* holds something JSON has no word for.
    """
    payload = orjson.dumps(state)
    header = orjson.dumps(_header(predictor, payload))
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(header + b"\n" + payload)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_checkpoint(path: Path, predictor: str) -> dict[str, Any]:
    """The state in *path*.

    Raises:
        OSError: it cannot be read.
        CheckpointError: it is damaged, or of another predictor, version or set of features.
    """
    header, separator, payload = path.read_bytes().partition(b"\n")
    try:
        found = orjson.loads(header)
    except orjson.JSONDecodeError:
        found = None
    if not separator or not isinstance(found, dict):
        raise CheckpointError("it is no checkpoint")
    wanted = _header(predictor, payload)
    for key, value in wanted.items():
        if found.get(key) != value:
            word = "predictor" if key == "model" else key
            raise CheckpointError(f"its {word} is {found.get(key)!r}, not {value!r}")
    state: dict[str, Any] = orjson.loads(payload)
    return state


def warm_start(path: Path, predictor: str, learner: Restorable) -> bool:
    """Restore *learner* from *path*; False for a cold start.

    A file that cannot be used is kept beside it as `.bad`, with a warning that says why.
    """
    if not path.is_file():
        return False
    try:
        learner.restore(read_checkpoint(path, predictor))
    except (OSError, ValueError) as error:
        aside = path.with_name(path.name + ".bad")
        log.warning(
            "starting cold: checkpoint %s cannot be used (%s); kept as %s", path, error, aside
        )
        path.replace(aside)
        return False
    return True


def _header(predictor: str, payload: bytes) -> dict[str, Any]:
    return {
        "version": VERSION,
        "model": predictor,
        "features": xxhash.xxh3_64_hexdigest(",".join(FEATURES).encode()),
        "digest": xxhash.xxh3_64_hexdigest(payload),
    }
