"""The benchmark of how fast `bench` simulates."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import simulation_speed


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["simulation_speed.py", "--rounds", "2", *arguments])
    simulation_speed.main()


def test_every_policy_asked_for_has_its_speeds(monkeypatch, capsys):
    policies = "--policies=random,lmetric"
    run(monkeypatch, "--workload=prefix50", "--requests=100", policies)

    rows = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    for policy in ("random", "lmetric"):
        (speeds,) = (row[1:] for row in rows if row[:1] == [policy])
        median, best, worst = (int(speed.replace(",", "")) for speed in speeds)
        assert best >= median >= worst > 100


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("--workload=poems", "agentic"), ("--fleet=a30x9", "a30x8"), ("--policies=best", "lmetric")],
)
def test_what_does_not_exist_is_refused_with_what_does(monkeypatch, capsys, wrong, right):
    with pytest.raises(SystemExit):
        run(monkeypatch, "--workload=prefix50", wrong)

    said = capsys.readouterr().err
    assert wrong.partition("=")[2] in said.split("error:")[1]
    assert right in said.split("error:")[1]


def test_a_missing_trace_is_named(monkeypatch, capsys, tmp_path):
    with pytest.raises(SystemExit):
        run(monkeypatch, "--traces", str(tmp_path))

    assert str(tmp_path) in capsys.readouterr().err
