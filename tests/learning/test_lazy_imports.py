"""What nobody uses of a library is not loaded, and is there for whoever does."""

import subprocess
import sys

import scipy

HEAVY = ["sklearn", "river.linear_model", "scipy.stats._stats_py", "grpc"]
if not scipy.__version__.startswith("1.15."):  # which loads it with its special functions
    HEAVY.append("scipy.sparse")


def said_by(program: str) -> str:
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    return ran.stdout.decode()


def test_the_service_loads_nothing_heavy_that_it_does_not_use():
    loaded = said_by("import lodestar_extproc.service.app, sys; print(*sys.modules)").split()

    assert not [name for name in HEAVY if name in loaded]


def test_what_was_left_out_is_loaded_when_it_is_used():
    program = (
        "from lodestar_extproc.learning.drift_detector import drift\n"
        "from scipy import stats\n"
        "detector = drift.KSWIN(seed=1, window_size=30, stat_size=10)\n"
        "seen = [detector.update(float(k)) or detector.drift_detected for k in range(200)]\n"
        "print(stats.norm.cdf(0.0), any(map(bool, seen)), drift.datasets.AirlinePassengers)\n"
    )

    assert said_by(program).startswith("0.5 True <class")
