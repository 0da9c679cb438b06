"""Reads journals back: one Replayed a line, with the candidates as the policy saw them.

It tolerates what a crash or a full disk leaves behind, and counts it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import orjson

from lodestar_extproc.decision import Candidates
from lodestar_extproc.endpoint import SNAPSHOT_COLUMNS, Endpoint, FleetSnapshot, FloatArray
from lodestar_extproc.journal.entry import KNOWN_FORMATS
from lodestar_extproc.request import InferenceRequest, RequestKind

# JSON has no infinity: an unknown value is NaN, unless it means "never".
_UNKNOWN = MappingProxyType(
    {
        "head_dispatched_at_s": -np.inf,
        "last_first_token_at_s": -np.inf,
        "scrape_age_s": np.inf,
    }
)


class NoJournal(ValueError):  # noqa: N818  (the condition's name)
    """The file is no journal, or one of a format that is not known here."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """One decision of a journal and what followed.

    Attributes:
        chosen: index into the candidates' endpoints.
        served: the index of who served; None where unknown or no candidate.
        used: False where Envoy went on without the decision.
        predicted_ttft_s: [n_endpoints]; None without a trained model.
        ttft_s: from the decision to the first token; None where none was seen.
    """

    pool: str
    policy: str
    reason: str
    propensity: float
    wall_s: float
    candidates: Candidates
    chosen: int
    served: int | None
    used: bool
    outcome: str
    predicted_ttft_s: FloatArray | None
    ttft_s: float | None

    @property
    def address(self) -> str:
        """Of the endpoint chosen."""
        return self.candidates.snapshot.endpoints[self.chosen].address


@dataclass(slots=True)
class ReadCounts:
    """What was read so far.

    Attributes:
        bad_lines: that are no JSON, or lack something.
    """

    lines: int = 0
    bad_lines: int = 0
    bytes_read: int = 0
    files: list[str] = field(default_factory=list)


def read_journals(
    paths: Iterable[Path],
    counts: ReadCounts,
    progressed: Callable[[], None] = lambda: None,
) -> Iterator[Replayed]:
    """The decisions of all *paths*, the oldest file first.

    Args:
        counts: kept up to date.
        progressed: called after each line.

    Raises:
        NoJournal: of the first file that is none.
        OSError: one cannot be read.
    """
    for path in sorted(paths, key=_opened_s):
        counts.files.append(str(path))
        with path.open("rb") as file:
            for line in file:
                counts.bytes_read += len(line)
                found = _read(line, counts)
                if found is not None:
                    yield found
                progressed()


def _opened_s(path: Path) -> float:
    """From the header, which also says that this is a journal."""
    with path.open("rb") as file:
        first = _json(file.readline())
    if "journal" not in first:
        raise NoJournal(f"{path} is no journal: its first line does not say so")
    if first["journal"] not in KNOWN_FORMATS:
        known = " and ".join(map(str, KNOWN_FORMATS))
        raise NoJournal(f"{path} has format {first['journal']}; this version reads {known}")
    try:
        return float(first["opened_s"])
    except (KeyError, TypeError, ValueError):
        raise NoJournal(f"{path} is no journal: its first line has no opened_s") from None


def _read(line: bytes, counts: ReadCounts) -> Replayed | None:
    fields = _json(line)
    if "journal" in fields:
        return None
    counts.lines += 1
    try:
        return _replayed(fields)
    except (KeyError, TypeError, ValueError, IndexError):
        counts.bad_lines += 1
        return None


def _json(line: bytes) -> dict[str, Any]:
    """The object in *line*; empty where there is none."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _replayed(fields: dict[str, Any]) -> Replayed:
    addresses = _texts(fields["addresses"])
    predicted, served = fields["predicted_ttft_s"], fields["served"]
    ttft_s = fields["ttft_s"] if fields["ttft_s"] is not None else fields["envoy_ttft_s"]
    return Replayed(
        pool=str(fields["pool"]),
        policy=str(fields["policy"]),
        reason=str(fields["reason"]),
        propensity=_positive(fields["propensity"]),
        wall_s=float(fields["wall_s"]),
        candidates=_candidates(fields),
        chosen=range(len(addresses))[fields["order"][0]],
        served=addresses.index(served) if served in addresses else None,
        used=bool(fields["used"]),
        outcome=str(fields["outcome"]),
        predicted_ttft_s=None if predicted is None else _column(predicted, len(addresses)),
        ttft_s=None if ttft_s is None else _positive(ttft_s),
    )


def _candidates(fields: dict[str, Any]) -> Candidates:
    n = len(fields["addresses"])
    columns = {name: _column(fields["snapshot"][name], n) for name in SNAPSHOT_COLUMNS}
    for name, meaning in _UNKNOWN.items():
        columns[name][np.isnan(columns[name])] = meaning
    named = zip(fields["addresses"], fields["accelerators"], strict=True)
    endpoints = tuple(Endpoint(address, accelerator) for address, accelerator in named)
    return Candidates(
        request=_request(fields["request"]),
        snapshot=FleetSnapshot.of(float(fields["at_s"]), endpoints, columns),
        matched_tokens=_column(fields["matched_tokens"], n),
        matched_ratio=_column(fields["matched_ratio"], n),
        prefill_s_per_ktoken=_column(fields["prefill_s_per_ktoken"], n),
    )


def _request(fields: dict[str, Any]) -> InferenceRequest:
    return InferenceRequest(
        model=str(fields["model"]),
        kind=RequestKind(fields["kind"]),
        block_hashes=(),
        prompt_bytes=int(fields["prompt_bytes"]),
        prompt_tokens=float(fields["prompt_tokens"]),
        streaming=bool(fields["streaming"]),
        max_output_tokens=fields["max_output_tokens"],
        ttft_slo_s=fields["ttft_slo_s"],
    )


def _texts(values: list[Any]) -> list[str]:
    if not all(isinstance(value, str) and value for value in values):
        raise ValueError(f"{values} are not all texts")
    return list(values)


def _column(values: list[float | None], n: int) -> FloatArray:
    column = np.array(values, dtype=np.float64)
    if column.shape != (n,):
        raise ValueError(f"{column.shape} values for {n} endpoints")
    return column


def _positive(value: float) -> float:
    if not value > 0:
        raise ValueError(f"{value} is not above 0")
    return float(value)
