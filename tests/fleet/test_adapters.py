import pytest

from builders import a_fleet
from lodestar_extproc.endpoint import Adapters, EndpointMetrics
from lodestar_extproc.fleet.adapters import FULL, ROOM, RUNNING, WAITING


def adapters(running="", waiting="", slots=2.0):
    return Adapters(frozenset(running.split()), frozenset(waiting.split()), slots)


def reporting(*said):
    fleet = a_fleet(len(said))
    for endpoint, each in zip(fleet.endpoints, said, strict=True):
        fleet.record_metrics(endpoint.address, EndpointMetrics(adapters=each), 0.0)
    return fleet


def test_the_effort_is_less_the_more_is_done():
    fleet = reporting(
        adapters("x"),
        adapters("y"),
        adapters("y z", "x"),
        adapters("y z"),
        adapters("y", "x"),
        None,
    )
    effort = fleet.adapters.effort("x", fleet.endpoints).tolist()
    assert effort == [RUNNING, ROOM, WAITING, FULL, WAITING, FULL]


@pytest.mark.parametrize("said", [None, adapters(), adapters("y")])
def test_a_model_that_nobody_reports_as_an_adapter_is_none(said):
    fleet = reporting(said, None)
    assert fleet.adapters.effort("x", fleet.endpoints) is None


def test_an_engine_that_left_or_says_nothing_any_more_is_forgotten():
    fleet = reporting(adapters("x"), adapters("y"))
    home = fleet.endpoints[0]
    fleet.record_metrics(home.address, EndpointMetrics(), 1.0)
    assert fleet.adapters.effort("x", fleet.endpoints) is None
    assert fleet.adapters.effort("y", fleet.endpoints) is not None
    fleet.set_endpoints([home])
    assert fleet.adapters.effort("y", fleet.endpoints) is None
