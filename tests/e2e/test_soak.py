"""The soak itself: a short run of it, and how it judges."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from soak_curve import MemoryCurve, fitted_slope
from soak_loop_lag import LoopLag

SOAK = Path(__file__).parents[1] / "support" / "soak.py"
HOUR = np.arange(60) / 60


def curve_of(mib, interval_s=60.0) -> MemoryCurve:
    points = [(i * interval_s, each, 30.0) for i, each in enumerate(mib)]
    return MemoryCurve(samples=points, trimmed=points)


def test_memory_that_grows_by_two_mib_an_hour_is_told_from_memory_that_varies():
    rng = np.random.default_rng(1)
    noise = rng.normal(0.0, 0.5, 60)
    flat, growing = fitted_slope(HOUR, 200 + noise), fitted_slope(HOUR, 200 + 4 * HOUR + noise)

    assert flat.low < 0 < flat.high
    assert growing.low > 1 < growing.mib_per_h == pytest.approx(4, abs=0.7)


def test_neighbours_that_have_much_in_common_widen_the_interval():
    slow_wave = np.sin(2 * np.pi * HOUR)
    quick_wave = np.sin(40 * np.pi * HOUR + 1)
    slow, quick = fitted_slope(HOUR, slow_wave), fitted_slope(HOUR, quick_wave)

    assert slow.high - slow.low > 2 * (quick.high - quick.low)


def test_what_fills_caches_in_the_first_quarter_is_no_growth():
    warming = [100 + 5 * i for i in range(15)] + [170] * 45

    assert curve_of(warming).slope().mib_per_h == pytest.approx(0, abs=0.01)
    assert curve_of(warming).is_judged()


def test_a_short_run_judges_no_slope():
    assert not curve_of([100] * 5).is_judged()
    assert math.isnan(curve_of([100] * 4).slope().mib_per_h)


def test_lag_is_that_between_two_pages():
    def page(*counts):
        bounds = ("0.001", "0.01", "+Inf")
        name = "lodestar_event_loop_lag_seconds_bucket"
        pairs = zip(bounds, counts, strict=True)
        return "".join(f'{name}{{le="{b}"}} {n}.0\n' for b, n in pairs)

    lag = LoopLag(page(10, 10, 20)).until(page(109, 110, 120))

    assert lag.within_s(0.5) == 0.001
    assert lag.within_s(1.0) == 0.01
    assert lag.told()["timers"] == 100


@pytest.mark.slow
def test_a_short_soak_leaves_nothing_behind(tmp_path):
    file = tmp_path / "soak.json"
    command = [sys.executable, str(SOAK), "--seconds", "20", "--rate", "60", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(file.read_text())
    assert told["failed"] == 0
    assert told["requests"] >= 1000
    assert len(told["misbehaved"]) >= 5
    assert told["engines_joined"] > 6
    assert told["requests"] == told["answered"] + sum(told["misbehaved"].values())
