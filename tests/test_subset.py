import pytest

from builders import a_fleet, a_request, a_router
from lodestar_extproc.request import Subset
from lodestar_extproc.routing.unserved import NoEndpoint

PODS = tuple(f"10.0.0.{host}:{port}" for host in (1, 2) for port in (8080, 9090))


@pytest.mark.parametrize(
    ("entries", "allowed"),
    [
        ([], []),
        ([""], []),
        (["10.0.0.1:8080"], [0]),
        (["10.0.0.1"], [0, 1]),
        (["10.0.0.1:8080,10.0.0.2"], [0, 2, 3]),
        (["10.0.0.1:3000"], []),
        (["  10.0.0.2:8080 ,  ,  10.0.0.1:9090  "], [1, 2]),
        (["10.0.0.1:8080, 10.0.0.2:8080", "10.0.0.9:1"], [0, 2]),
        (["10.0.0.11"], []),
    ],
)
def test_a_host_allows_its_ports_and_an_address_itself(entries, allowed):
    subset = Subset.of(entries)
    assert [i for i, address in enumerate(PODS) if address in subset] == allowed


def test_only_the_subset_is_chosen_from():
    router = a_router(3)
    decision = router.route(
        a_request(), request_id="", at_s=0.0, subset=Subset.of(["10.0.0.2", "10.0.0.3:8000"])
    )
    assert set(decision.addresses) == {"10.0.0.2:8000", "10.0.0.3:8000"}


def test_a_subset_without_members_has_no_endpoint():
    with pytest.raises(NoEndpoint):
        a_router(3).route(a_request(), request_id="", at_s=0.0, subset=Subset.of(["10.9.9.9"]))


def test_of_a_subset_only_the_healthy_are_chosen_until_none_is():
    fleet = a_fleet(3)
    subset = Subset.of(["10.0.0.1", "10.0.0.2"])

    def chosen() -> list[str]:
        return [e.address for e in fleet.snapshot(0.0, subset).endpoints]

    assert chosen() == ["10.0.0.1:8000", "10.0.0.2:8000"]
    for _ in range(2):
        fleet.record_probe("10.0.0.1:8000", False, 0.0)
    assert chosen() == ["10.0.0.2:8000"]
    for _ in range(2):
        fleet.record_probe("10.0.0.2:8000", False, 0.0)
    assert chosen() == ["10.0.0.1:8000", "10.0.0.2:8000"]
