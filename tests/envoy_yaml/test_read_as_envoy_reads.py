"""Files that Envoy accepts are read without error, and mean to us what Envoy says they mean.

Shipped files, with features of Envoy put in by the dice, are spelled otherwise by the dice. A real
Envoy is started with each, and the whole of what its `/config_dump` says has to be what we read.
The long run: `make test-slow`, or `pytest -m slow tests/envoy_yaml -s` to see the counts.
"""

import copy
import random
from collections import Counter
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from envoy_dump import Refused, envoy_dump
from envoy_features import RESOURCES, a_draft, in_folder
from envoy_spellings import Speller, canonical
from lodestar_extproc.config import EnvoyConfig, read_eds_members
from lodestar_extproc.config.envoy import config_of, read_root
from lodestar_extproc.config.resources import read_resources
from lodestar_extproc.config.schema import BOOTSTRAP

ROOT = Path(__file__).parents[2]
SHIPPED = [
    YAML(typ="safe").load(path)
    for path in sorted((ROOT / "envoy").rglob("*.yaml"))
    if "static_resources:" in path.read_text() and path.name != "eds.yaml"
]
FEW, MANY = 16, 320
ACCEPTED = 0.9
"""The share of what the dice make that has to be a file for Envoy: else little was tried."""


async def test_what_envoy_says_of_a_file_is_what_we_read(tmp_path):
    await compared(tmp_path, range(FEW))


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_what_envoy_says_of_hundreds_of_files_is_what_we_read(tmp_path):
    await compared(tmp_path, range(FEW, FEW + MANY))


async def compared(folder, seeds):
    counts = Counter()
    for seed in seeds:
        place = folder / str(seed)
        place.mkdir()
        path = a_file(place, seed)
        try:
            dump = await envoy_dump(path)
        except Refused as refused:
            counts["refused"] += 1
            print(f"seed {seed}: {str(refused)[-300:]}")
            continue
        counts["accepted"] += 1
        resources = read_resources(read_root(path), path)
        config = config_of(resources, path)
        for name, (theirs, ours) in parts(dump, resources).items():
            assert not list(differences(ours, theirs)), f"seed {seed}: {name}"
            counts[name] += len(ours)
        counts["endpoints"] += endpoints_are_envoys(dump, config, seed)
        assert not config.not_looked_at, f"seed {seed}"
    print(dict(counts))
    assert counts["accepted"] >= ACCEPTED * len(seeds)


def a_file(folder, seed):
    dice = random.Random(seed)
    speller = Speller(dice)
    draft = a_draft(copy.deepcopy(dice.choice(SHIPPED)), dice)
    for name, found in draft.files.items():
        tree = in_folder({"resources": found}, folder)
        (folder / name).write_text(speller.document(tree, RESOURCES))
    path = folder / "envoy.yaml"
    path.write_text(speller.document(in_folder(draft.tree, folder), BOOTSTRAP))
    return path


def parts(dump, resources):
    """Of each part of the configuration what Envoy says, and what we read."""
    tables = [t for m in resources.managers for t in m.route_tables]
    # Those of scopes.
    dump["route_config"] += dump["route_configuration"]
    pairs = {
        "listener": resources.listeners,
        "cluster": resources.clusters,
        "route_config": tables,
    }
    found = {name: (by_name(dump[name]), by_name(ours)) for name, ours in pairs.items()}
    (theirs,) = (canonical(root) for root in dump["bootstrap"])
    ours = canonical(resources.root)
    # What Envoy says of itself.
    theirs["node"] = {k: v for k, v in theirs["node"].items() if k in ours["node"]}
    found["bootstrap"] = ([theirs], [ours])
    return found


def by_name(nodes):
    return sorted((canonical(node) for node in nodes), key=lambda each: each.get("name", ""))


def differences(ours, theirs, place=""):
    """Where two trees differ: the place, what stands in ours, what in the other."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted(ours.keys() | theirs.keys()):
            yield from differences(ours.get(key), theirs.get(key), f"{place}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for i, pair in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(*pair, f"{place}[{i}]")
    elif ours != theirs:
        yield place, ours, theirs


def endpoints_are_envoys(dump: dict, config: EnvoyConfig, seed: int) -> int:
    """Envoy's hosts with their priorities are our members, and those that are leaving."""
    (pool,) = config.pools
    if pool.resolution.by_dns:
        return 0
    hosts = {
        node.get("cluster_name").text: {
            (address_of(entry), locality.get("priority").number or 0): entry
            for locality in node.get("endpoints").items()
            for entry in locality.get("lb_endpoints").items()
        }
        for node in dump["endpoint_config"]
    }["engines"]
    members = read_eds_members(pool.eds) if pool.eds else pool.members
    ours = {(f"{member.host}:{member.port}", float(member.priority)) for member in members}
    leaving = {key for key in hosts if key not in ours}
    assert ours <= hosts.keys(), f"seed {seed}"
    assert all(hosts[key].get("health_status").text != "HEALTHY" for key in leaving), seed
    return len(ours)


def address_of(entry):
    socket = entry.get("endpoint", "address", "socket_address")
    return f"{socket.get('address').text}:{socket.get('port_value').text}"
