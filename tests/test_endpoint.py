"""A snapshot's columns: each declared once, found by its name at its place."""

import numpy as np
import pytest

from builders import a_fleet, dispatch
from lodestar_extproc.endpoint import COLUMNS, SNAPSHOT_COLUMNS, EndpointMetrics, FleetSnapshot
from lodestar_extproc.fleet import load


def test_a_column_is_the_row_at_its_place():
    snapshot = a_fleet(2).everything(0.0)

    assert [column.place for column in COLUMNS] == list(range(len(snapshot.values)))
    for column in COLUMNS:
        assert np.shares_memory(getattr(snapshot, column.name), snapshot.values[column.place])


def test_what_is_counted_stands_where_the_snapshot_reads_it():
    places = {
        name.lower(): place
        for name, place in vars(load).items()
        if name.isupper() and hasattr(FleetSnapshot, name.lower())
    }

    assert places == {column.name: column.place for column in COLUMNS}


def test_nothing_is_known_of_a_fresh_endpoint():
    snapshot = a_fleet(1).everything(0.0)

    for column in COLUMNS:
        if column.name not in ("kv_capacity_tokens", "token_budget"):
            np.testing.assert_equal(getattr(snapshot, column.name)[0], column.fresh)


def test_what_was_scraped_grows_stale_and_nothing_else():
    fleet = a_fleet(1)
    address = fleet.endpoints[0].address
    fleet.record_metrics(address, EndpointMetrics(1.0, 1.0, 0.5, 40_000.0), 0.0)

    known, stale = fleet.everything(1.0), fleet.everything(100.0)
    assert not np.isnan(known.values).any()
    unknown = {c.name for c in COLUMNS if np.isnan(getattr(stale, c.name)).any()}
    assert unknown == {c.name for c in COLUMNS if c.scraped}


def test_a_snapshot_is_made_again_from_what_a_journal_keeps_of_it():
    fleet = a_fleet(3)
    for i in range(4):
        dispatch(fleet, str(i), fleet.endpoints[i % 3].address, at_s=float(i))
    fleet.first_token("1", 5.0)
    snapshot = fleet.snapshot(6.0)

    kept = {name: getattr(snapshot, name) for name in SNAPSHOT_COLUMNS}
    again = FleetSnapshot.of(6.0, snapshot.endpoints, kept)
    for name in SNAPSHOT_COLUMNS:
        np.testing.assert_array_equal(getattr(again, name), kept[name])


def test_what_a_journal_keeps_is_named_so_for_ever():
    # Journals of before are read by these names.
    assert SNAPSHOT_COLUMNS == (
        "prefill_requests",
        "prefill_uncached_tokens",
        "prefill_prompt_tokens",
        "prefill_pairs",
        "head_uncached_tokens",
        "head_dispatched_at_s",
        "last_first_token_at_s",
        "decode_requests",
        "decode_context_tokens",
        "running_requests",
        "waiting_requests",
        "kv_usage_ratio",
        "scrape_age_s",
        "kv_capacity_tokens",
        "token_budget",
    )


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_a_column_asked_of_the_class_says_what_it_is(column):
    assert getattr(FleetSnapshot, column.name) is column
