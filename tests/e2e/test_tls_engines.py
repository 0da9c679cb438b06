"""Engines behind TLS, a real Envoy with a transport socket, and the service on the same file."""

import pytest

from certificates import Authority
from lodestar_extproc.fleet.health_state import HealthState
from tls_stack import tls_stack, transport_socket
from waiting import until

pytestmark = pytest.mark.long

CHECK = {
    "timeout": "1s",
    "interval": "0.2s",
    "unhealthy_threshold": 1,
    "healthy_threshold": 1,
    "http_health_check": {"path": "/v2/health/ready"},
}


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


def scraped_and_up(endpoints) -> bool:
    return all(e["scrapes_succeeded"] > 0 and e["state"] == "healthy" for e in endpoints)


async def settled(stack) -> None:
    """Every endpoint was probed and scraped a few times."""

    async def is_so() -> bool:
        return all(
            e["scrapes_succeeded"] + e["scrapes_failed"] > 2 for e in await stack.endpoints()
        )

    await until(is_so)


async def test_engines_by_tls_are_scraped_probed_and_chosen_as_envoy_reaches_them(
    tmp_path, authority
):
    shown = authority.sign("engine", "engine.models", "127.0.0.1")

    def edit(cluster) -> None:
        names = [{"san_type": "DNS", "matcher": {"exact": "engine.models"}}]
        socket = transport_socket(authority, sni="engine.models")
        common = socket["typed_config"]["common_tls_context"]
        common["validation_context"]["match_typed_subject_alt_names"] = names
        cluster["transport_socket"] = socket
        cluster["health_checks"] = [CHECK]

    async with tls_stack(tmp_path, shown, edit) as stack:
        await settled(stack)
        answers = await stack.ask()
        assert [status for status, _ in answers] == [200] * 10
        assert len({served for _, served in answers}) == 2
        assert scraped_and_up(await stack.endpoints())


async def test_engines_that_ask_for_a_certificate_are_shown_envoys(tmp_path, authority):
    ours = authority.sign("envoy")

    def edit(cluster) -> None:
        cluster["transport_socket"] = transport_socket(authority, ours)
        cluster["health_checks"] = [CHECK]

    shown, ca = authority.sign("engine"), authority.certificate
    async with tls_stack(tmp_path, shown, edit, client_ca=ca) as stack:
        await settled(stack)
        assert [status for status, _ in await stack.ask()] == [200] * 10
        assert scraped_and_up(await stack.endpoints())


async def test_where_we_may_not_ask_traffic_goes_on_and_the_log_says_why(
    tmp_path, authority, caplog
):
    def edit(cluster) -> None:
        cluster["transport_socket"] = transport_socket(authority, authority.sign("envoy"))
        cluster["health_checks"] = [CHECK]

    shown, ca = authority.sign("engine"), authority.certificate
    plain = {"engine_tls": "off"}
    async with tls_stack(tmp_path, shown, edit, client_ca=ca, **plain) as stack:
        fleet = stack.app.routers.get().fleet

        def all_down() -> bool:
            states = {fleet.health.state(e.address, 0.0) for e in fleet.endpoints}
            return states == {HealthState.DOWN}

        await until(all_down)
        answers = await stack.ask()
        assert [status for status, _ in answers] == [200] * 10
        assert len({served for _, served in answers}) == 2
        # Changes of state are looked for once a second.
        await until(lambda: "all 2 endpoints of pool engines are out" in caplog.text)


async def test_settings_say_how_engines_are_asked_where_the_file_cannot(tmp_path, authority):
    """As where Envoy gets its certificates from a mesh, and we get them as files."""
    ours = authority.sign("envoy")

    def edit(cluster) -> None:
        cluster["transport_socket"] = transport_socket(authority, ours)

    settings = {
        "engine_tls": "verified",
        "engine_ca_path": str(authority.certificate),
        "engine_certificate_path": str(ours.certificate),
        "engine_key_path": str(ours.key),
        "health_path": "/v2/health/ready",
    }
    shown, ca = authority.sign("engine"), authority.certificate
    async with tls_stack(tmp_path, shown, edit, client_ca=ca, **settings) as stack:
        await settled(stack)
        assert [status for status, _ in await stack.ask()] == [200] * 10
        assert scraped_and_up(await stack.endpoints())
