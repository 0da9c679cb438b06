"""What the doctor says of several replicas: that they share nothing, and what is no fault of theirs."""

from __future__ import annotations

import copy

import pytest
from test_doctor import subject

from lodestar_extproc.check.rules.replicas import replicas_share_nothing, share_password_in_clear
from trapped_files import DEFAULT, Config, another_replica, service, share_by


def a_file() -> Config:
    return copy.deepcopy(DEFAULT)


def faults(rule, config: Config) -> list[str]:
    return [fault.problem for fault in rule(subject(config))]


def test_two_replicas_that_share_nothing_are_found_and_what_to_write_is_said():
    config = a_file()
    another_replica(config)

    (said,) = faults(replicas_share_nothing, config)
    assert "2 replicas share nothing" in said
    assert "share: redis://" in said


def test_replicas_that_share_workers_of_one_machine_and_a_standby_are_as_they_should_be():
    shares, workers, standby = a_file(), a_file(), a_file()
    another_replica(shares)
    share_by(shares, "redis://cache")
    another_replica(workers, "127.0.0.2")
    another_replica(standby)
    assignment = service(standby)["load_assignment"]
    first, second = assignment["endpoints"][0]["lb_endpoints"]
    assignment["endpoints"] = [
        {"lb_endpoints": [first]},
        {"priority": 1, "lb_endpoints": [second]},
    ]

    for config in (a_file(), shares, workers, standby):
        assert not faults(replicas_share_nothing, config)


@pytest.mark.parametrize(
    "url", ["rediss://:secret@cache", "redis://cache", "redis://:secret@127.0.0.1", "nonsense"]
)
def test_a_password_is_safe_by_tls_on_this_machine_and_in_the_environment(url):
    config = a_file()
    share_by(config, url)

    assert not faults(share_password_in_clear, config)


@pytest.mark.parametrize(
    "url", ["redis://u:secret@cache", "redis+sentinel://:secret@a,127.0.0.1/main"]
)
def test_a_password_in_clear_is_found_and_not_repeated(url):
    config = a_file()
    share_by(config, url)

    (said,) = faults(share_password_in_clear, config)
    assert "rediss://" in said
    assert "secret" not in said.replace("LODESTAR_SHARE_PASSWORD", "")
