"""MemoryCurve: how much memory a process and its children hold over time, and whether it grows."""

from __future__ import annotations

import asyncio
import math
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from process_children import children_of

TRIMMED_AFTER_S = 2.0
"""How long a trim may take, on a busy machine."""
WARM_UP_RATIO = 0.25
"""First share of a run, of which nothing is expected: caches fill, and a model earns its trust."""
JUDGED_FROM_S = 1200.0
"""After a shorter time than this behind the warm-up a slope says more of noise than of a leak."""
BIN_S = 60.0
TWO_SIDED_95 = 1.96
Point = tuple[float, float, float]
"""Seconds, MiB of the process, MiB of its children."""


@dataclass(frozen=True)
class Slope:
    """MiB an hour, with its 95 % interval; NaN where there are too few points."""

    mib_per_h: float
    low: float
    high: float


@dataclass
class MemoryCurve:
    """What an allocator keeps of a burst is no leak: a slope is taken of what a trim leaves.

    Attributes:
        samples: every few seconds.
        trimmed: once a minute, after a trim.
    """

    samples: list[Point] = field(default_factory=list)
    trimmed: list[Point] = field(default_factory=list)

    def sample(self, at_s: float, pid: int) -> None:
        self.samples.append(_point(at_s, pid))

    async def sample_trimmed(self, at_s: float, pid: int) -> None:
        os.kill(pid, signal.SIGUSR1)
        await asyncio.sleep(TRIMMED_AFTER_S)
        self.trimmed.append(_point(at_s, pid))

    def by_bin(self, bin_s: float) -> list[Point]:
        """Means of bins, each with the time of its middle."""
        samples = np.array(self.samples)
        bins = (samples[:, 0] // bin_s).astype(int)
        return [
            ((i + 0.5) * bin_s, *samples[bins == i, 1:].mean(axis=0).round(2).tolist())
            for i in np.unique(bins)
        ]

    def is_judged(self) -> bool:
        return self.samples[-1][0] * (1 - WARM_UP_RATIO) >= JUDGED_FROM_S

    def slope(self) -> Slope:
        """Of all processes together, after the warm-up."""
        return self._slope_of(self.trimmed)

    def untrimmed_slope(self) -> Slope:
        """The same with what the allocator keeps, minute by minute."""
        return self._slope_of(self.by_bin(BIN_S))

    def _slope_of(self, points: list[Point]) -> Slope:
        warm_from_s = WARM_UP_RATIO * self.samples[-1][0]
        warm = np.array([each for each in points if each[0] >= warm_from_s]).reshape(-1, 3)
        return fitted_slope(warm[:, 0] / 3600, warm[:, 1] + warm[:, 2])


def fitted_slope(hours: np.ndarray, mib: np.ndarray) -> Slope:
    """By least squares; the interval is widened by what neighbours have in common (AR(1))."""
    if len(hours) < 4:
        return Slope(math.nan, math.nan, math.nan)
    slope, level = np.polyfit(hours, mib, 1)
    residuals = mib - level - slope * hours
    power = float(np.sum(residuals**2))
    spread = float(np.sum((hours - hours.mean()) ** 2))
    error = math.sqrt(power / (len(hours) - 2) / spread)
    common = float(np.sum(residuals[1:] * residuals[:-1])) / power if power else 0.0
    common = min(max(common, 0.0), 0.95)
    half = TWO_SIDED_95 * error * math.sqrt((1 + common) / (1 - common))
    return Slope(*(round(float(each), 3) for each in (slope, slope - half, slope + half)))


def _point(at_s: float, pid: int) -> Point:
    children = sum(map(resident_mib, children_of(pid)))
    return round(at_s, 1), round(resident_mib(pid), 2), round(children, 2)


def resident_mib(pid: int) -> float:
    """0 for a process that is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(each.split()[1]) / 1024 for each in lines if each.startswith("VmRSS")), 0.0)
