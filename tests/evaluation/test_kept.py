"""Outcomes that outlive the process."""

import dataclasses
from pathlib import Path

import pytest

from lodestar_extproc.evaluation.kept import KeptOutcomes, kept_outcomes
from lodestar_extproc.evaluation.study import run_all
from lodestar_extproc.evaluation.trial import Cell, Trial, run_trial

CELL = Cell("prefix50", "a30x8", "steady", None, (10.0,))


@pytest.fixture
def trial():
    return Trial(CELL, 1, 120, ("lmetric", "learned"), Path("no-traces"))


def test_what_was_kept_is_found_whole(tmp_path, trial):
    kept = KeptOutcomes(tmp_path / "trials", "code")
    outcomes = list(run_trial(trial))
    kept.keep(trial, outcomes)

    assert kept.find(trial) == outcomes


def test_a_trial_that_was_kept_does_not_run_again(tmp_path, trial):
    kept = kept_outcomes(tmp_path)
    ((_, first),) = run_all([trial], 1, kept)
    ((_, second),) = run_all([trial], 1, kept_outcomes(tmp_path))

    # A second run would have taken another time.
    assert second == first


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 2},
        {"n_requests": 121},
        {"contenders": ("lmetric",)},
        {"cell": dataclasses.replace(CELL, rates_per_s=(11.0,))},
    ],
)
def test_another_trial_is_not_found(tmp_path, trial, other):
    kept = KeptOutcomes(tmp_path, "code")
    kept.keep(trial, [])

    assert kept.find(dataclasses.replace(trial, **other)) is None


def test_what_other_code_brought_about_is_not_found(tmp_path, trial):
    KeptOutcomes(tmp_path, "code").keep(trial, [])

    assert KeptOutcomes(tmp_path, "other code").find(trial) is None


@pytest.mark.parametrize(
    "content", [b"", b"[{", b'[{"contender": "lmetric"}]', b'[{"figures": 1}]']
)
def test_a_file_that_is_no_good_is_as_if_there_were_none(tmp_path, trial, content):
    kept = KeptOutcomes(tmp_path, "code")
    kept.keep(trial, [])
    (path,) = tmp_path.iterdir()
    path.write_bytes(content)

    assert kept.find(trial) is None
