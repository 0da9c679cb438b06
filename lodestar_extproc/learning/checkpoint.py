"""Checkpoints: what was learned, in a file that survives a crash at any moment.

Plain JSON under a header that says what it is; a file that does not fit is set aside, never used
in part, and what is no checkpoint at all is left where it is. It does not know what is learned.

Files keep the words of version 0.1.0, so that either version reads what the other wrote: `model` is
the predictor, `pools` the accelerators of a predictor, `rivals` the experts of `auto`.
"""

from __future__ import annotations

import errno
import logging
import os
import tempfile
from pathlib import Path
from typing import Any, Protocol

import orjson
import xxhash

from lodestar_extproc.features import FEATURES
from lodestar_extproc.learning.set_aside import aside_of, free_name
from lodestar_extproc.regular_file import NotAFile, open_regular

VERSION = 1
"""Of the format: another one is not read."""
MAX_HEADER_BYTES = 4096
"""A header has some 110 bytes. More is not read of a file before it is known to be a checkpoint."""

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
    """The file is a checkpoint, and not one that can be used here."""


class OfAnotherPredictor(CheckpointError):  # noqa: N818  (the condition's name)
    """A good checkpoint, perhaps, of a predictor that is not in force now."""

    def __init__(self, found: str, wanted: str) -> None:
        super().__init__(f"its predictor is {found!r}, not {wanted!r}")
        self.found = found


class ForeignFile(ValueError):  # noqa: N818  (the condition's name)
    """There is something that Lodestar did not write: it is neither read, moved nor replaced."""


def write_checkpoint(path: Path, predictor: str, state: dict[str, Any]) -> None:
    """Replace the checkpoint at *path* by *state*, or leave what is there whole.

    A checkpoint of another predictor or version is set aside first. A symbolic link stays one.

    Raises:
        OSError: the disk refuses, or there is something that is no file.
        ForeignFile: there is a file that is no checkpoint.
        TypeError: *state* holds something JSON has no word for.
    """
    path = _behind_links(path)
    payload = orjson.dumps(state)
    header = orjson.dumps(_header(predictor, payload))
    _make_way(path, predictor)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(header + b"\n" + payload)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno == errno.EBUSY:
            raise NotAFile(f"{path} is a mount point: mount the folder it is in instead") from error
        raise


def read_checkpoint(path: Path, predictor: str) -> dict[str, Any]:
    """The state in *path*.

    Raises:
        OSError: it cannot be read, or is no file.
        ForeignFile: it is no checkpoint.
        CheckpointError: it is damaged, or of another predictor, version or set of features.
    """
    with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
        found = _read_header(path, file.readline(MAX_HEADER_BYTES))
        _require_fitting(found, predictor)
        payload = file.read()
    digest = _digest(payload)
    if found.get("digest") != digest:
        raise CheckpointError(f"its digest is {found.get('digest')!r}, not {digest!r}")
    state: dict[str, Any] = orjson.loads(payload)
    return state


def warm_start(path: Path, predictor: str, learner: Restorable) -> bool:
    """Restore *learner* from *path*; False for a cold start.

    A checkpoint that is wrong inside, or of another version, is kept beside it as `.bad`, with a
    warning that says why; one of another predictor under that predictor's name, from where it is
    taken up when that predictor is back.

    Raises:
        OSError: it cannot be read or set aside, or is no file.
        ForeignFile: it is no checkpoint.
    """
    path = _behind_links(path)
    try:
        learner.restore(read_checkpoint(path, predictor))
    except FileNotFoundError:
        return False
    except ForeignFile:
        raise
    except OfAnotherPredictor as error:
        _set_aside(path, error)
        return _taken_back(path.with_name(f"{path.name}.{predictor}"), predictor, learner)
    except ValueError as error:
        _set_aside(path, error)
        return False
    return True


def _behind_links(path: Path) -> Path:
    """Where *path* leads: what is written by another name and moved there would replace a link."""
    return Path(os.path.realpath(path))


def _taken_back(kept: Path, predictor: str, learner: Restorable) -> bool:
    """Restore from *kept*, where an earlier change of predictors put it."""
    try:
        learner.restore(read_checkpoint(kept, predictor))
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        log.warning("starting cold: checkpoint %s cannot be used (%s)", kept, error)
        return False
    return True


def _make_way(path: Path, predictor: str) -> None:
    """See that *path* may be replaced by a checkpoint of *predictor*.

    Raises:
        OSError: it is no file, or cannot be read or moved.
        ForeignFile: it is no checkpoint.
    """
    try:
        with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
            header = file.readline(MAX_HEADER_BYTES)
        if header:
            _require_fitting(_read_header(path, header), predictor)
    except FileNotFoundError:
        return
    except CheckpointError as error:
        _set_aside(path, error)


def _set_aside(path: Path, error: ValueError) -> None:
    """Keep what is at *path* under another name, over nothing but an older one of its kind.

    Raises:
        OSError: it cannot be moved.
    """
    if isinstance(error, OfAnotherPredictor):
        aside = aside_of(path, error.found, lambda kept: _is_of(kept, error.found))
        log.warning("checkpoint %s is not used (%s); kept as %s", path, error, aside)
    else:
        aside = free_name(path, "bad")
        log.warning(
            "starting cold: checkpoint %s cannot be used (%s); kept as %s", path, error, aside
        )
    path.replace(aside)


def _is_of(path: Path, predictor: str) -> bool:
    """Whether it is a checkpoint of *predictor*, and so an older one of what is to be kept."""
    try:
        with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
            found = _read_header(path, file.readline(MAX_HEADER_BYTES))
            return str(found["model"]) == predictor
    except (OSError, ValueError):
        return False


def _read_header(path: Path, line: bytes) -> dict[str, Any]:
    """The header in the first *line* of *path*.

    Raises:
        CheckpointError: it is empty, cut off, or was never written to the disk.
        ForeignFile: it is not how a checkpoint begins.
    """
    if not line.strip(b"\0"):
        raise CheckpointError("it is empty")
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        if line.startswith(b'{"version":'):
            raise CheckpointError("its header is damaged") from None
        found = None
    if not isinstance(found, dict) or not {"version", "model", "features", "digest"} <= set(found):
        raise ForeignFile(f"{path} is no checkpoint of Lodestar: left as it is; name another file")
    return found


def _require_fitting(found: dict[str, Any], predictor: str) -> None:
    """Refuse a header that is of something else than this version's *predictor*.

    Raises:
        CheckpointError: it is.
    """
    for key, value in (("version", VERSION), ("features", _features_digest())):
        if found[key] != value:
            raise CheckpointError(f"its {key} is {found[key]!r}, not {value!r}")
    if found["model"] != predictor:
        raise OfAnotherPredictor(str(found["model"]), predictor)


def _header(predictor: str, payload: bytes) -> dict[str, Any]:
    return {
        "version": VERSION,
        "model": predictor,
        "features": _features_digest(),
        "digest": _digest(payload),
    }


def _features_digest() -> str:
    return _digest(",".join(FEATURES).encode())


def _digest(data: bytes) -> str:
    return xxhash.xxh3_64_hexdigest(data)
