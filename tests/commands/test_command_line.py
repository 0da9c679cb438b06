"""The command line as a whole: quick to answer, whole at 80 columns, told by the environment."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from typer.testing import CliRunner

from builders import an_envoy_file
from lodestar_extproc.commands.cli import app
from lodestar_extproc.commands.on_demand import COMMANDS, FOREIGN, loaded

HEAVY = ("aiohttp", "grpc", "matplotlib", "numba", "numpy", "river", "scipy", "sklearn")
"""What no help needs, and costs a tenth of a second of CPU or more to import."""
OWN = sorted(COMMANDS.keys() - {FOREIGN})


def run(*arguments: str, **environment: str):
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "80"} | environment)


def imported_by(*arguments: str) -> set[str]:
    """Top-level packages that a process has imported when it has answered."""
    script = (
        "import sys, atexit, json\n"
        "atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))\n"
        "from lodestar_extproc.commands.cli import main\nmain()\n"
    )
    done = subprocess.run(
        (sys.executable, "-c", script, *arguments), capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in json.loads(done.stderr)}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([n, "--help"] for n in OWN)])
def test_an_answer_about_options_loads_nothing_that_works(arguments):
    assert imported_by(*arguments).isdisjoint(HEAVY)


def cpu_s(*arguments: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run((sys.executable, *arguments), capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["check", "--help"], ["init", "--help"]]
)
def test_an_answer_about_options_costs_a_few_times_what_loading_typer_does(arguments):
    """It takes 1.3 to 2.5 times as much; loading what serves takes ten times."""
    # By turns, and the best of five: a busy machine adds to both.
    spent = [
        (cpu_s("-m", "lodestar_extproc", *arguments), cpu_s("-c", "import typer, rich.console"))
        for _ in range(5)
    ]
    ours_s, typer_s = map(min, zip(*spent, strict=True))
    assert ours_s < 3.5 * typer_s


def test_every_command_stands_in_a_file_of_its_name_and_is_listed_by_one_line():
    shown = run("--help").output
    for name, line in COMMANDS.items():
        function = getattr(import_module(f"lodestar_extproc.commands.{name}"), name)
        assert function.__doc__
        assert re.search(rf"^  {name} +{re.escape(line)}$", shown, re.MULTILINE)


@pytest.mark.parametrize("name", OWN)
def test_help_is_80_columns_wide_and_cuts_no_name(name):
    shown = run(name, "--help")

    assert shown.exit_code == 0
    examples = [line for line in shown.output.splitlines() if "lodestar-extproc" in line]
    assert all(len(line) <= 80 for line in shown.output.splitlines() if line not in examples)
    assert "…" not in shown.output
    for option in loaded(name).params:
        for spelling in option.opts:
            assert spelling in shown.output or option.param_type_name == "argument"
    # What is copied is one line as it was written.
    written = re.findall(r"^ +(lodestar-extproc .+)$", loaded(name).help, re.MULTILINE)
    assert written
    assert all(re.search(rf"^ +{re.escape(line)}$", shown.output, re.MULTILINE) for line in written)


@pytest.mark.parametrize("name", OWN)
def test_no_default_is_broken_inside_of_a_name(name):
    shown = run(name, "--help").output
    for policy in ("prefix_affinity_token_load", "least_request", "round_robin"):
        assert re.sub(r"\s+", "", shown).count(policy) == shown.count(policy)


def test_a_mistyped_command_is_answered_with_the_nearest():
    shown = run("exlpain")

    assert shown.exit_code == 2
    assert "'exlpain'" in shown.stderr
    assert "explain" in shown.stderr.replace("exlpain", "")


def test_options_are_taken_from_the_environment_and_the_command_line_wins():
    by_environment = run("explain", LODESTAR_EXPLAIN_ADMIN="ftp://there")
    by_option = run("explain", "--admin", "gopher://here", LODESTAR_EXPLAIN_ADMIN="ftp://there")

    assert "ftp://there is no HTTP address" in by_environment.stderr
    assert "gopher://here is no HTTP address" in by_option.stderr


def test_a_variable_of_a_deployment_changes_no_command():
    # Kubernetes sets such for a Service named lodestar, and charts set the version.
    shown = run(
        "explain",
        "--admin",
        "ftp://x",
        LODESTAR_VERSION="1.2",
        LODESTAR_PORT="tcp://10.0.0.1:9002",
        LODESTAR_SERVICE_HOST="10.0.0.1",
    )

    assert "ftp://x is no HTTP address" in shown.stderr


@pytest.mark.parametrize(
    ("words", "offered"),
    [("lodestar-extproc ex", "explain"), ("lodestar-extproc serve --adm", "--admin")],
)
def test_a_shell_completes_commands_and_options(words, offered):
    environment = os.environ | {
        "_LODESTAR_EXTPROC_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    script = "import sys; sys.argv = ['lodestar-extproc']; from lodestar_extproc.commands.cli import main; main()"
    done = subprocess.run(
        (sys.executable, "-c", script), capture_output=True, text=True, env=environment, check=False
    )

    assert offered in done.stdout.split()


@pytest.mark.long
def test_serve_is_ready_after_less_than_three_seconds_of_cpu(tmp_path):
    process = subprocess.Popen(
        (sys.executable, "-m", "lodestar_extproc", "serve", "--envoy-config", an_envoy_file(tmp_path),
         "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--drain", "0"),
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        for line in process.stderr:
            if "serving Envoy" in line:
                break
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        ready_after_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    finally:
        process.terminate()
        process.communicate(timeout=60)

    assert ready_after_s < 3.0
