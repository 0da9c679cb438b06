import pytest

from lodestar_extproc.config.mapped import Priorities
from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.extproc.scheduling_hints import NO_HINTS, scheduling_hints
from lodestar_extproc.names import (
    MODEL_REWRITE_HEADERS,
    OBJECTIVE_HEADERS,
    SESSION_HEADERS,
    TPOT_SLO_HEADERS,
    TTFT_SLO_HEADERS,
)

PRIORITIES = Priorities((("batch", -1), ("chat", 2)))
EVERYTHING = ("objective", "slo", "model_rewrite")
SETTINGS = PoolSettings(objective_priorities=PRIORITIES, trusted_headers=EVERYTHING)


@pytest.mark.parametrize("what", ["ttft", "tpot"])
@pytest.mark.parametrize(
    ("headers", "slo_s"),
    [
        ({"x-lodestar-{}-slo-ms": "250"}, 0.25),
        ({"x-llm-d-slo-{}-ms": "250"}, 0.25),
        ({"x-slo-{}-ms": "250.5"}, 0.2505),
        ({"x-slo-{}-ms": "1", "x-lodestar-{}-slo-ms": "2"}, 0.002),
        ({"x-lodestar-{}-slo-ms": "soon", "x-slo-{}-ms": "1"}, 0.001),
        ({"x-slo-{}-ms": "0"}, None),
        ({"x-slo-{}-ms": "-3"}, None),
        ({"x-slo-{}-ms": "nan"}, None),
        ({"x-slo-{}-ms": "inf"}, None),
        ({"x-slo-{}-ms": ""}, None),
    ],
)
def test_a_bound_is_a_positive_number_of_milliseconds(what, headers, slo_s):
    hints = scheduling_hints(
        {name.format(what): value for name, value in headers.items()}, SETTINGS
    )
    other = "tpot" if what == "ttft" else "ttft"
    assert getattr(hints, f"{what}_slo_s") == slo_s
    assert getattr(hints, f"{other}_slo_s") is None


@pytest.mark.parametrize("name", OBJECTIVE_HEADERS)
@pytest.mark.parametrize(("objective", "priority"), [("batch", -1), ("chat", 2), ("other", 0)])
def test_an_objective_has_the_priority_that_settings_give_it(name, objective, priority):
    assert scheduling_hints({name: objective}, SETTINGS).priority == priority


def test_the_newer_name_of_a_header_is_read_before_the_older():
    for newer, older in (OBJECTIVE_HEADERS, MODEL_REWRITE_HEADERS):
        hints = scheduling_hints({newer: "chat", older: "batch"}, SETTINGS)
        assert (hints.priority, hints.target_model) in ((2, ""), (0, "chat"))


COMMANDS = {
    "objective": dict.fromkeys(OBJECTIVE_HEADERS, "chat"),
    "slo": dict.fromkeys((*TTFT_SLO_HEADERS, *TPOT_SLO_HEADERS), "250"),
    "model_rewrite": dict.fromkeys(MODEL_REWRITE_HEADERS, "another"),
}


@pytest.mark.parametrize("kind", EVERYTHING)
def test_what_is_not_trusted_is_as_if_it_were_not_there(kind):
    trusted = tuple(each for each in EVERYTHING if each != kind)
    settings = PoolSettings(objective_priorities=PRIORITIES, trusted_headers=trusted)
    assert scheduling_hints(COMMANDS[kind], settings) == NO_HINTS
    assert scheduling_hints(COMMANDS[kind], SETTINGS) != NO_HINTS


def test_by_default_nobody_renames_the_model():
    assert scheduling_hints(COMMANDS["model_rewrite"], PoolSettings()) == NO_HINTS


@pytest.mark.parametrize("name", ["x-chat", "X-Chat"])
def test_a_session_is_named_in_the_header_of_the_settings(name):
    settings = PoolSettings(session_header=name)
    assert scheduling_hints({"x-chat": "a", "x-session-id": "b"}, settings).session == "a"
    assert scheduling_hints({"x-session-id": "b"}, settings) == NO_HINTS


@pytest.mark.parametrize("name", SESSION_HEADERS)
def test_coding_agents_name_their_session_unasked(name):
    assert scheduling_hints({name: "a"}, PoolSettings()).session == "a"
    assert scheduling_hints({name: "a", "x-session-id": "b"}, PoolSettings()).session == "b"
