"""Headers that command, sent by a client: by every shipped file they command nobody."""

import pytest

from envoy_process import ENVOY_FILES, cluster_of
from lodestar_extproc import names
from lodestar_extproc.config.settings import PoolSettings
from stack import chat, running_stack
from waiting import until

FILES = sorted(
    str(path.relative_to(ENVOY_FILES))
    for path in (*ENVOY_FILES.glob("*.yaml"), *ENVOY_FILES.glob("[kv]*/*.yaml"))
    # The one with EDS has the connection manager of envoy.yaml: test_shipped_files.py holds that.
    if "HttpConnectionManager" in path.read_text() and path.name != "eds.yaml"
)
TRUSTS_ALL = PoolSettings(trusted_headers=("objective", "slo", "model_rewrite"))
"""So that only Envoy stands between the client and us."""
STRIPPED = (names.DESTINATION, names.SERVED, names.SUBSET, *names.MODEL_REWRITE_HEADERS)


def no_resolution(config) -> None:
    """Engines by address, whatever the file asks: where they come from is not the matter here."""
    for name in ("engines", "lodestar"):
        cluster_of(config, name)["type"] = "STATIC"


@pytest.mark.parametrize("file", FILES)
async def test_what_a_client_commands_reaches_neither_us_nor_an_engine(tmp_path, file):
    log = "access_log" in (ENVOY_FILES / file).read_text()
    async with running_stack(
        tmp_path, file, access_log=log, edit=no_resolution, settings=TRUSTS_ALL
    ) as stack:
        a, b = stack.engines
        stack.prefer(b, a)
        commands = dict.fromkeys(names.MODEL_REWRITE_HEADERS, "another")
        commands |= dict.fromkeys((names.DESTINATION, names.SERVED, names.SUBSET), a.address)
        commands |= {names.POOL: "others", names.POLICY: "random", names.COST: "ttft"}
        commands |= {names.TEST_SELECTION: a.address}
        upper = {name.upper(): value for name, value in commands.items()}
        for sent in (commands, upper):
            assert (await stack.post(chat(), **sent))[0] == 200
        await until(lambda: len(stack.routers.routed) == 2)
        assert {request.model for request in stack.routers.routed} == {"m"}
        shadow = file == "shadow.yaml"
        if not shadow:
            assert (len(a.seen), len(b.seen)) == (0, 2)
        for _, headers, body in (*a.seen, *b.seen):
            assert b'"m"' in body
            found = {name: headers.get(name) for name in STRIPPED if name in headers}
            assert shadow or found == {names.DESTINATION: f"{b.address},{a.address}"}
