"""Parse an engine's Prometheus page into EndpointMetrics: one scan by a table of names.

Pure: it knows neither HTTP nor time. The names stand in `engine_names.py`.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from lodestar_extproc.endpoint import Adapters, EndpointMetrics
from lodestar_extproc.fleet.engine_names import ENGINES, Combine, EngineNames, Series, Source

MAX_SERIES = 1024
"""Of one name: 64 data-parallel engines with 16 ranks each. More are no engine's, and adding them
up would hold up the event loop."""

MAX_KNOWN = 4096
"""Label texts that are remembered: the dozen that is read of a page, for hundreds of engines."""
MAX_KNOWN_BYTES = 512
"""Of one that is: those with the names of many adapters change anyway."""


class Sample(NamedTuple):
    """One line of a page.

    Attributes:
        adding: those of its labels by which series add up.
        value: None where it is no usable number.
    """

    labels: Mapping[bytes, bytes]
    adding: frozenset[tuple[bytes, bytes]]
    value: float | None


def parse(page: bytes, engine: str) -> EndpointMetrics:
    """What *page* says in the names of *engine*; never raises.

    A value is None where it is absent, or where any series it is made of is NaN, infinite,
    negative or no number; so is a usage above 1 and a capacity of 0. An engine that is not in
    `ENGINES` says nothing.

    >>> parse(b'vllm:num_requests_running{engine="0"} 3.0', "vllm").running_requests
    3.0
    """
    reader = PageReader(engine)
    reader.feed(page)
    return reader.metrics()


class PageReader:
    """Reads a page that comes in pieces, each of whole lines; never raises."""

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._names = ENGINES.get(engine)
        self._samples: dict[bytes, list[Sample]] = {}

    def feed(self, lines: bytes) -> None:
        """Take up the samples in *lines* that the engine's names ask for."""
        if self._names is None:
            return
        for name, rest in _LINES[self._engine].findall(b"\n" + lines):
            match = _SAMPLE.match(rest)
            # An unreadable one has an empty value.
            labelled, value = (match[1] or b"", match[2]) if match else (b"", b"")
            read = _known_labels if len(labelled) <= MAX_KNOWN_BYTES else _labels
            sample = Sample(*read(labelled, self._names.adding), _number(value))
            self._samples.setdefault(name, []).append(sample)

    @property
    def names(self) -> frozenset[bytes]:
        """Those of the engine's names that the page has."""
        return frozenset(self._samples)

    def metrics(self) -> EndpointMetrics:
        """What all of the page said."""
        names = self._names
        if names is None:
            return EndpointMetrics()
        page = _Page(self._samples, names)
        read = page.read
        usage = read(names.kv_usage_ratio)
        return EndpointMetrics(
            running_requests=read(names.running_requests),
            waiting_requests=read(names.waiting_requests),
            kv_usage_ratio=usage if usage is not None and usage <= 1 else None,
            kv_capacity_tokens=read(names.kv_capacity_tokens) or None,
            generation_tokens=read(names.generation_tokens),
            prefix_query_tokens=read(names.prefix_query_tokens),
            prefix_hit_tokens=read(names.prefix_hit_tokens),
            adapters=page.adapters(),
            external_hit_tokens=read(names.external_hit_tokens),
            cache_block_tokens=read(names.cache_block_tokens) or None,
            prefix_caching=read(names.prefix_caching),
            awake=read(names.awake),
        )


def names_read(engine: str) -> frozenset[bytes]:
    """The metrics that are read of a page of *engine*; none of one that is not in `ENGINES`."""
    names = ENGINES.get(engine)
    return _wanted(names) if names is not None else frozenset()


def _wanted(names: EngineNames) -> frozenset[bytes]:
    return frozenset(
        series.name
        for field in EndpointMetrics._fields
        for source in getattr(names, field)
        for series in source
    )


def _line_pattern(names: EngineNames) -> re.Pattern[bytes]:
    """Finds the samples of every metric in *names*, as name and rest of the line.

    It begins with all that the names share: `re` searches for a literal five times faster.
    """
    wanted = _wanted(names)
    shared = os.path.commonprefix(sorted(wanted)) or b""  # noqa: RUF071 (of characters, not of paths)
    rests = b"|".join(sorted(re.escape(name.removeprefix(shared)) for name in wanted))
    begin = re.escape(shared).replace(b":", b"[:_]")
    return re.compile(rb"\n(" + begin + rb"(?:" + rests + rb"))([{ \t][^\n]*+)")


_LINES = MappingProxyType({name: _line_pattern(names) for name, names in ENGINES.items()})
_SAMPLE = re.compile(
    rb'(?:[ \t]*+\{((?:[^"}\n]++|"(?:[^"\\\n]++|\\[^\n])*+")*+)\})?+[ \t]*+([^ \t\n]++)'
)
"""What follows a name: label text in braces, which quoted values may hold too, and the value."""
_TRUTHS = MappingProxyType({b"true": 1.0, b"false": 0.0})
_LABEL = re.compile(rb'([a-zA-Z_]\w*+)[ \t]*+=[ \t]*+"((?:[^"\\\n]++|\\[^\n])*+)"')


def _labels(
    text: bytes, adding: tuple[bytes, ...]
) -> tuple[Mapping[bytes, bytes], frozenset[tuple[bytes, bytes]]]:
    """The labels in *text*, and those of them that *adding* names."""
    labels = MappingProxyType(dict(_LABEL.findall(text)))
    return labels, frozenset(item for item in labels.items() if item[0] in adding)


_known_labels = functools.lru_cache(maxsize=MAX_KNOWN)(_labels)
"""They are alike on page after page."""


class _Page:
    """The samples of one page, read by the names of one engine."""

    def __init__(self, samples: Mapping[bytes, list[Sample]], names: EngineNames) -> None:
        self._samples = samples
        self._names = names

    def read(self, sources: tuple[Source, ...]) -> float | None:
        """The value of the first source that is known."""
        for source in sources:
            value = _product([self._combined(series) for series in source])
            if value is not None:
                return value
        return None

    def adapters(self) -> Adapters | None:
        """Of the newest sample: its value is the time at which it was true."""
        for series in itertools.chain.from_iterable(self._names.adapters):
            samples = self._of(series)
            if samples:
                labels = max(samples, key=lambda sample: sample.value or 0.0).labels
                running, waiting, slots = (labels.get(label, b"") for label in series.labels)
                return Adapters(_names_in(running), _names_in(waiting), _number(slots) or 0.0)
        return None

    def _of(self, series: Series) -> list[Sample]:
        """Collectors and some releases of SGLang write `_` for the `:` of engines."""
        name = series.name
        return self._samples.get(name) or self._samples.get(name.replace(b":", b"_"), [])

    def _combined(self, series: Series) -> float | None:
        values = self._values(series)
        known = [value for value in values if value is not None]
        if not known or len(known) < len(values):
            return None
        match series.combine:
            case Combine.SUM:
                return sum(known)
            case Combine.MEAN:
                return sum(known) / len(known)
            case Combine.LEAST:
                return min(known)
            case Combine.MOST:
                return max(known)

    def _values(self, series: Series) -> list[float | None]:
        """One for each set of series that repeat each other: None where none is a usable number."""
        samples = self._of(series)
        if len(samples) > MAX_SERIES:
            return [None]
        names, found = self._names, dict[frozenset[tuple[bytes, bytes]], float | None]()
        for labels, adding, value in samples:
            if series.where and labels.get(series.where[0]) != series.where[1]:
                continue
            if labels.get(names.totals):
                continue  # a part of another one
            if series.labels:
                told = _product([_setting(labels.get(label, b"")) for label in series.labels])
            else:
                told = value
            known = found.get(adding)
            found[adding] = told if known is None else max(known, told or 0.0)
        return list(found.values())


def _setting(text: bytes) -> float | None:
    """A number, or a truth as 0 or 1, of a label."""
    return _TRUTHS.get(text.lower(), _number(text))


def _number(text: bytes) -> float | None:
    """A finite number of 0 or more; None for anything else."""
    try:
        value = float(text)
    except ValueError:
        return None
    # float() also reads "1_000", which is no number in the exposition format.
    return value if value >= 0 and math.isfinite(value) and b"_" not in text else None


def _names_in(text: bytes) -> frozenset[str]:
    """Of a list parted by commas."""
    parts = (part.strip() for part in text.decode("utf-8", "replace").split(","))
    return frozenset(filter(None, parts))


def _product(factors: list[float | None]) -> float | None:
    product = 1.0
    for factor in factors:
        if factor is None:
            return None
        product *= factor
    return product if math.isfinite(product) else None
