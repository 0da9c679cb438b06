from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

TESTS = Path(__file__).parent
LONG = (
    "compose/",
    "config/test_resources.py",
    "config/test_upstream.py",
    "e2e/",
    "envoy_yaml/test_read_as_envoy_reads.py",
    "evaluation/test_safeguards.py",
    "evaluation/test_trial.py",
    "extproc/test_body.py",
    "extproc/test_exchange_states.py",
    "fleet/discovery/test_dns_as_envoy.py",
    "learning/test_forest.py",
    "learning/test_predictors.py",
    "learning/test_residual_predictor.py",
    "policies/test_ranking_is_a_question.py",
    "service/",
    "simulator/test_engine.py",
    "test_calibration.py",
    "test_learning_benchmark.py",
    "test_packaging.py",
    "test_picker_service.py",
    "test_simulation_speed.py",
)
"""What takes seconds a test: processes, real Envoys, whole virtual runs, many examples."""


def pytest_configure() -> None:
    """A test run that is told to stop ends what it started, as on Ctrl-C."""
    # An example that takes long on a busy machine is no fault. And a run says the same of the same
    # code: what new examples find is looked for where somebody waits for it (`make test-chance`).
    settings.register_profile("same", deadline=None, derandomize=True)
    settings.register_profile("chance", deadline=None, print_blob=True)
    settings.load_profile(os.environ.get("LODESTAR_TEST_EXAMPLES", "same"))
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`make test-fast` leaves out what is marked here."""
    for item in items:
        if str(item.path.relative_to(TESTS)).startswith(LONG):
            item.add_marker("long")
