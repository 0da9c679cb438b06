"""Which addresses and files are a worker's own, and when its parent takes it for dead."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from envoy_files import bootstrap, cluster, ext_proc, grpc_cluster, listener, manager, written
from lodestar_extproc.config import read_envoy_config
from lodestar_extproc.service.listen import all_addresses, own_addresses
from lodestar_extproc.service.worker import (
    WorkerPlace,
    attend,
    dealt,
    own_admin,
    own_file,
    own_place,
)
from lodestar_extproc.service.workers import Beats


def place(number: int = 1, n_workers: int = 2, folder: Path = Path("/run/l")) -> WorkerPlace:
    return WorkerPlace(number, n_workers, folder, os.getppid())


def a_config(folder, *addresses: str):
    block = {"filter_metadata": {"lodestar": {}}}
    ours = grpc_cluster("lodestar")
    entries = [
        {"endpoint": {"address": {"socket_address": {"address": h, "port_value": int(p)}}}}
        for h, p in (address.split(":") for address in addresses)
    ]
    ours["load_assignment"] = {
        "cluster_name": "lodestar",
        "endpoints": [{"lb_endpoints": entries}],
    }
    asks = listener(manager(ext_proc("decide", "lodestar", chooses=True)))
    pool = cluster("engines", metadata=block)
    return read_envoy_config(written(folder, bootstrap([asks], [pool, ours])))


def test_a_process_reads_its_place_from_the_environment_its_parent_gave_it(monkeypatch):
    assert own_place() is None
    for name, value in place(folder=Path("/tmp/a folder")).environment().items():
        monkeypatch.setenv(name, value)

    assert own_place() == place(folder=Path("/tmp/a folder"))


def test_the_first_worker_has_the_files_that_settings_name_and_each_other_one_its_own():
    journal = Path("/var/lib/journal")

    assert own_file(journal, None) == own_file(journal, place(0)) == journal
    assert own_file(journal, place(1)) == Path("/var/lib/journal.worker-1")


def test_ports_for_operators_count_up_and_end_where_ports_end():
    assert own_admin("127.0.0.1:9090", place(0)) == "127.0.0.1:9090"
    assert own_admin("[::1]:9090", place(1)) == "[::1]:9091"
    assert own_admin("127.0.0.1:0", place(1)) == "127.0.0.1:0"
    with pytest.raises(ValueError, match="would need port 65536"):
        own_admin("127.0.0.1:65535", place(1))


def test_one_address_is_shared_by_all_workers(tmp_path):
    config = a_config(tmp_path, "127.0.0.1:9002")
    addresses = all_addresses(config, (), 2)

    assert own_addresses(addresses, place(0)) == own_addresses(addresses, place(1))
    assert addresses == ("127.0.0.1:9002",)
    assert not dealt(addresses, 2)


def test_as_many_local_addresses_as_workers_are_dealt_out(tmp_path):
    config = a_config(tmp_path, "127.0.0.1:9002", "127.0.0.1:9003")
    addresses = all_addresses(config, (), 2)

    assert own_addresses(addresses, place(0)) == ("127.0.0.1:9002",)
    assert own_addresses(addresses, place(1)) == ("127.0.0.1:9003",)


def test_addresses_of_other_machines_are_not_dealt_out_to_workers_of_this_one(tmp_path):
    config = a_config(tmp_path, "10.0.0.1:9002", "10.0.0.2:9002")

    assert all_addresses(config, (), 2) == ("0.0.0.0:9002",)


def test_addresses_by_option_go_before_those_of_the_configuration(tmp_path):
    config = a_config(tmp_path, "127.0.0.1:9002", "127.0.0.1:9003")
    named = ("unix:/run/a", "unix:/run/b")

    assert own_addresses(all_addresses(config, named, 2), place(1)) == ("unix:/run/b",)


def test_the_file_of_a_socket_cannot_be_shared_and_the_error_says_what_can(tmp_path):
    config = a_config(tmp_path, "127.0.0.1:9002")

    with pytest.raises(ValueError, match="name 3 of them in Envoy's cluster"):
        all_addresses(config, ("unix:/run/a",), 3)


async def test_a_worker_whose_parent_is_gone_stops(tmp_path):
    stopped = []
    orphan = WorkerPlace(0, 2, tmp_path, parent_pid=os.getppid() + 1)

    await attend(orphan, lambda: stopped.append(True))

    assert stopped
    assert orphan.alive_file.exists()


def test_only_a_beat_that_had_begun_can_be_missed(tmp_path):
    file = tmp_path / "alive"
    beats = Beats(file)
    assert [beats.n_missed() for _ in range(3)] == [0, 0, 0]  # it is still starting

    file.touch()
    assert [beats.n_missed() for _ in range(4)] == [0, 1, 2, 3]
    os.utime(file, ns=(1, 1))  # a clock that steps back is a change as any other
    assert beats.n_missed() == 0
