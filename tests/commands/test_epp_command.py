"""The flags of other endpoint pickers, and what they come to."""

from __future__ import annotations

from pathlib import Path

import pytest

from lodestar_extproc.commands.epp import _parser, _tell, config_of, options_of, with_command
from lodestar_extproc.config import ConfigError, InferencePoolRef, PodSelector

# The arguments of the manifests of the Gateway API's conformance suite.
CONFORMANCE = (
    "--pool-name primary-inference-pool --pool-namespace app --v 4 --zap-encoder json "
    "--grpc-port 9002 --grpc-health-port 9003 --config-file /nowhere/plugins.yaml"
)
PEER_FILE = """
apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: header-based-testing-filter}]
"""


def parsed(text):
    flags, unknown = _parser().parse_known_args(text.split())
    assert not unknown
    return flags


def source_of(text):
    (pool,) = config_of(parsed(text)).pools
    return pool.kubernetes.watched


def test_conformance_manifest_needs_no_change(tmp_path):
    (tmp_path / "plugins.yaml").write_text(PEER_FILE)
    flags = parsed(CONFORMANCE.replace("/nowhere", str(tmp_path)))

    (pool,) = config_of(flags).pools
    assert pool.kubernetes.watched == InferencePoolRef("primary-inference-pool", "app")
    options = options_of(flags)
    assert (options.listen, options.health, options.admin) == (
        ("[::]:9002",),
        ("[::]:9003",),
        ":9090",
    )
    assert options.tls is not None
    assert options.tls.folder is None
    assert options.drain_s == 30.0


def test_settings_may_stand_in_the_config_file(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("policy: least_request\nendpoints: {engine: sglang}\n")

    (pool,) = config_of(parsed(f"--pool-name p --config-file {path}")).pools

    assert pool.settings.policy == "least_request"
    assert pool.kubernetes.defaults.engine == "sglang"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("policy: fastest", "settings.yaml:1: policy: "),
        ("polcy: learned", "did you mean policy"),
        ("endpoints: {engine: mine}", "endpoints.engine"),
        ("[1, 2]", "is not a mapping of settings"),
    ],
)
def test_wrong_settings_name_their_line(tmp_path, text, problem):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=problem.replace("[", r"\[")):
        config_of(parsed(f"--pool-name p --config-file {path}"))


def test_empty_settings_are_the_defaults(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("# nothing yet\n")

    assert config_of(parsed(f"--pool-name p --config-file {path}")).pools[0].settings.policy


def test_pods_can_be_picked_from_without_a_pool(monkeypatch):
    monkeypatch.setenv("NAMESPACE", "models")
    text = "--endpoint-selector app=vllm,env=prod --endpoint-target-ports 8000,8001,8000"

    assert source_of(text) == PodSelector("app=vllm,env=prod", (8000, 8001), "models")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "either --pool-name or --endpoint-selector"),
        ("--pool-name a --endpoint-selector b=c", "either"),
        ("--endpoint-selector b=c", "1 to 8 ports"),
        ("--endpoint-selector b=c --endpoint-target-ports 1,2,3,4,5,6,7,8,9", "1 to 8 ports"),
    ],
)
def test_it_says_what_is_missing(text, problem):
    with pytest.raises(ValueError, match=problem):
        config_of(parsed(text))


@pytest.mark.parametrize(
    ("text", "secure"),
    [
        ("", True),
        ("--secure-serving", True),
        ("--secure-serving=false", False),
        ("--secure-serving=true --cert-path /certs", True),
    ],
)
def test_encrypted_unless_it_is_turned_off(text, secure):
    tls = options_of(parsed(text)).tls

    assert (tls is not None) == secure
    if "cert-path" in text:
        assert tls.folder == Path("/certs")


@pytest.mark.parametrize(
    ("text", "drain_s"), [("5s", 5.0), ("1m30s", 90.0), ("500ms", 0.5), ("1.5s", 1.5), ("1h", 3600)]
)
def test_durations_are_gos(text, drain_s):
    assert options_of(parsed(f"--drain-timeout {text}")).drain_s == drain_s


@pytest.mark.parametrize(
    "text",
    ["--drain-timeout 5", "--drain-timeout soon", "--secure-serving=maybe", "--grpc-port x"],
)
def test_values_that_are_none_are_refused(text, capsys):
    with pytest.raises(SystemExit):
        parsed(text)
    assert text.split("=")[0].split()[0] in capsys.readouterr().err


def test_other_flags_of_the_pickers_are_taken(caplog):
    parsed(
        "--pool-name p --tracing=false --enable-pprof --metrics-endpoint-auth=false "
        "--ha-enable-leader-election --refresh-metrics-interval 50ms --v=3 --log-level error "
        "--kv-cache-usage-percentage-metric x --tls-min-version VersionTLS13 -v 2"
    )


def test_a_flag_that_does_nothing_says_so(caplog):
    flags, unknown = _parser().parse_known_args(
        [
            "--pool-name",
            "p",
            "--enable-pprof=true",
            "--zap-devel=false",
            "--refresh-metrics-interval",
            "50ms",
            "--no-such-flag",
        ]
    )
    _tell(flags, unknown)

    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "--refresh-metrics-interval has no effect: set scrape_interval_s in the settings file",
        "taken, and without any effect here: --enable-pprof",
        "not known here, and left out: --no-such-flag",
    ]


def test_tracing_is_done_where_it_is_installed_and_else_told(monkeypatch, caplog):
    flags, _ = _parser().parse_known_args(["--pool-name", "p", "--tracing"])
    monkeypatch.setattr("lodestar_extproc.service.traces.tracing_is_installed", lambda: False)

    assert not options_of(flags).tracing
    _tell(flags, ())
    assert "--tracing has no effect" in caplog.text
    monkeypatch.setattr("lodestar_extproc.service.traces.tracing_is_installed", lambda: True)
    assert options_of(flags).tracing


def test_a_picker_shows_the_metrics_of_those_it_replaces_unless_told_otherwise():
    shown, _ = _parser().parse_known_args(["--pool-name", "p"])
    hidden, _ = _parser().parse_known_args(["--pool-name", "p", "--alias-metrics=false"])

    assert options_of(shown).alias_metrics
    assert not options_of(hidden).alias_metrics


def test_ports_may_be_named_as_pods_name_them():
    selected = config_of(parsed("--endpoint-selector app=vllm --endpoint-target-ports http,8001"))

    assert selected.pools[0].kubernetes.watched.ports == ("http", 8001)


def test_flags_without_a_command_are_the_pickers():
    assert with_command(["--pool-name", "p"]) == ["epp", "--pool-name", "p"]
    assert with_command(["-v=4", "--pool-name=p"])[0] == "epp"
    assert with_command(["serve", "--admin", ":9"]) == ["serve", "--admin", ":9"]
    assert with_command(["--help"]) == ["--help"]


def test_the_transport_is_chosen_as_for_serve():
    assert options_of(parsed("--pool-name p")).transport == "asyncio"
    assert options_of(parsed("--pool-name p --transport grpcio")).transport == "grpcio"
