"""What the fault bench strikes; the bench itself is `make test-faults`."""

import pytest

pytest.importorskip("redis", reason="no client of Redis: pip install 'lodestar-extproc[redis]'")

from fault import ENDLESS
from fault_plan import Form
from faults import FAULTS, drawn_pairs


def test_there_are_at_least_forty_single_faults_each_with_a_name_of_its_own():
    names = {fault.name for fault in FAULTS}
    assert len(names) == len(FAULTS) >= 40


def test_every_form_of_the_service_is_struck():
    assert {fault.form for fault in FAULTS} == set(Form)


def test_only_where_there_is_nobody_to_serve_may_any_number_fail():
    assert [f.name for f in FAULTS if f.may_fail == ENDLESS] == ["all engines are down"]


def test_pairs_are_the_same_for_the_same_seed_and_strike_different_parts_of_one_form():
    pairs = drawn_pairs(FAULTS, 20, seed=3)
    assert pairs == drawn_pairs(FAULTS, 20, seed=3) != drawn_pairs(FAULTS, 20, seed=4)
    for first, second in pairs:
        assert first.part != second.part
        assert first.form is second.form
