"""The log of events is bounded, in memory and in lines; each line is text or JSON."""

from __future__ import annotations

import io
import json
import logging

import pytest

from lodestar_extproc.commands.log_format import JsonLines
from lodestar_extproc.config import PoolSettings
from lodestar_extproc.events.change import ChangeKind
from lodestar_extproc.events.event_log import CAPACITY, LINES_AT_ONCE, EventLog
from lodestar_extproc.events.settings_changes import changed_settings


class Clock:
    now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


def test_the_last_events_are_kept_newest_first_and_numbered():
    log = EventLog(Clock())
    for i in range(CAPACITY + 10):
        log.tell(ChangeKind.DRIFT, f"the {i}th", pool="p")

    assert len(log.last(10_000)) == CAPACITY
    assert [event.number for event in log.last(2)] == [CAPACITY + 10, CAPACITY + 9]
    assert [event.text for event in log.last(9, since=CAPACITY + 9)] == [f"the {CAPACITY + 9}th"]


def test_a_flood_is_kept_but_not_written_and_that_is_said(caplog):
    clock = Clock()
    log = EventLog(clock)
    for _ in range(LINES_AT_ONCE + 50):
        log.tell(ChangeKind.ENDPOINT_DOWN, "down")
    assert len(caplog.records) == LINES_AT_ONCE
    clock.now_s += 10.0
    log.tell(ChangeKind.ENDPOINT_UP, "up")

    assert "50 events were too many for this log; see /events" in caplog.text
    assert len(log.last(1000)) == LINES_AT_ONCE + 51


def test_a_clock_that_is_set_back_stops_nothing(caplog):
    clock = Clock()
    log = EventLog(clock)
    clock.now_s -= 3600.0
    log.tell(ChangeKind.DRIFT, "after")

    assert "after" in caplog.text


@pytest.mark.parametrize(
    ("kind", "level"),
    [
        (ChangeKind.ALL_DOWN, "ERROR"),
        (ChangeKind.ENDPOINT_DOWN, "WARNING"),
        (ChangeKind.ENDPOINT_UP, "INFO"),
    ],
)
def test_the_level_says_how_bad_it_is(kind, level, caplog):
    caplog.set_level(logging.INFO)
    EventLog().tell(kind, "what happened", pool="engines")

    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == (level, "pool engines: what happened")


def test_a_line_of_json_has_the_event_and_its_fields():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("lodestar_extproc.events")
    logger.addHandler(handler)
    try:
        EventLog().tell(
            ChangeKind.ENDPOINT_DOWN, 'it said "no"\n', pool="p", endpoint="10.0.0.1:80"
        )
        logger.warning("plain %s", "words")
    finally:
        logger.removeHandler(handler)
    event, plain = map(json.loads, stream.getvalue().splitlines())

    assert event["event"] == "endpoint_down"
    assert (event["pool"], event["endpoint"], event["level"]) == ("p", "10.0.0.1:80", "warning")
    assert event["message"] == 'pool p: it said "no"\n'
    assert event["time"].endswith("+00:00")
    assert plain["message"] == "plain words"
    assert "event" not in plain


def test_settings_that_changed_are_named_with_both_values():
    old, new = PoolSettings(), PoolSettings(policy="random", burn_in_samples=7)

    said = changed_settings(old, new)
    assert "policy: 'learned' is now 'random'" in said
    assert "burn_in_samples: " in said
    assert changed_settings(old, old) == "endpoints' settings"
