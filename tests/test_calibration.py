"""Fitting and replaying, on runs that were recorded from simulated engines of known cost."""

import csv
import gzip
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))

import calibrate  # noqa: E402  (needs the path)
import plot_results  # noqa: E402
from cells import Cell, interleaved  # noqa: E402
from engine_fit import first_guess, fit, loss, part_of, simulate, slower, slower_host  # noqa: E402
from real_runs import Run, Times, prompt_of, read_runs  # noqa: E402

from lodestar_extproc.evaluation.chats import Arrival  # noqa: E402
from lodestar_extproc.simulator.accelerators import EngineSpec, StepCost  # noqa: E402

FAST = EngineSpec(
    "fast",
    StepCost(12.0, 4.0, 0.02, 1.0, 0.1, 0.05),
    kv_blocks=3000,
    api_delay_s=0.01,
    jitter_cv=0.0,
    stall_ratio=0.0,
)
SLOW = replace(FAST, accelerator="slow", cost=StepCost(20.0, 5.0, 0.06, 3.0, 0.2, 0.1))
SPECS = {"fast": FAST, "slow": SLOW}
CELL = Cell("made", "mixed", 8.0, "round_robin", 1, 25.0)


def recorded(cell: Cell = CELL, specs=SPECS) -> Run:
    """What engines of *specs* make of *cell*, dealt out in turn."""
    arrivals = cell.arrivals(on_cpu=False)
    at_s = np.array([arrival.at_s for arrival in arrivals])
    names = np.array(sorted(specs))[np.arange(len(arrivals)) % len(specs)]
    nothing = np.zeros_like(at_s)
    run = Run(cell, at_s, [prompt_of(a) for a in arrivals], names, Times(nothing, nothing))
    return replace(run, times=simulate(run, specs)[0])


def write(folder: Path, runs: list[Run]) -> Path:
    """*runs* as compare_on_gpu.py leaves them."""
    names = list(asdict(CELL))
    header = [*names, "at_s", "kind", "ttft_s", "e2e_s", "output_chunks", "engine", "failure"]
    with gzip.open(folder / "requests.csv.gz", "wt", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for run in runs:
            kinds = [arrival.kind for arrival in run.cell.arrivals(on_cpu=False)]
            for i, at_s in enumerate(run.at_s):
                times = (round(run.times.ttft_s[i], 5), round(run.times.e2e_s[i], 5))
                said = (round(at_s, 5), kinds[i], *times, run.output_tokens[i], run.served_by[i])
                writer.writerow([*asdict(run.cell).values(), *said, ""])
    alone = {
        f"made-{name}": {
            "kv_tokens": 48000.0,
            "prefill": [
                {"prompt_tokens": n, "ttft_s": [0.03 + scale * n]} for n in (256, 2048, 8192)
            ],
            "decode": [{"batch": 1, "tpot_s": [0.015]}, {"batch": 16, "tpot_s": [0.02]}],
        }
        for name, scale in (("fast", 3e-5), ("slow", 9e-5))
    }
    summary = {"about": {"gpu": "one", "alone": alone}, "cells": [asdict(r.cell) for r in runs]}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_a_run_is_read_back_with_the_prompts_its_seed_makes(tmp_path):
    run = recorded()

    (again,) = read_runs(write(tmp_path, [run]))

    assert again.cell == run.cell
    assert again.times.ttft_s == pytest.approx(run.times.ttft_s, abs=1e-5)
    assert list(again.served_by) == list(run.served_by)
    assert all(
        np.array_equal(a.block_ids, b.block_ids)
        for a, b in zip(again.prompts, run.prompts, strict=True)
    )


def test_requests_that_the_seed_does_not_make_are_refused(tmp_path):
    run = recorded()
    write(tmp_path, [replace(run, at_s=run.at_s + 0.01)])

    with pytest.raises(ValueError, match="seed"):
        read_runs(tmp_path)


def test_equal_beginnings_of_prompts_are_equal_blocks():
    chats = [a for a in CELL.arrivals(on_cpu=False) if a.kind == "chat"]
    first, longer = next(
        (a, b) for a in chats for b in chats if a is not b and b.messages[:2] == a.messages[:2]
    )
    ids = [prompt_of(each).block_ids for each in (first, longer)]
    shared = min(map(len, ids))

    assert (ids[0][:shared] == ids[1][:shared]).mean() > 0.9


def test_a_block_of_the_real_cache_is_hit_at_once_or_not_at_all():
    # They part within the second half of the tenth block of 32 tokens, which are 58 letters.
    one, other = (
        Arrival(0.0, "chat", (("user", text),), 1) for text in ("x" * 600, "x" * 560 + "y" * 40)
    )

    for block_tokens, shared in ((16, 19), (32, 18)):
        ids = [prompt_of(each, block_tokens).block_ids for each in (one, other)]
        assert np.flatnonzero(ids[0] != ids[1])[0] == shared
        assert len(set(ids[0].tolist())) == len(ids[0]) == 20


def test_a_replay_is_exact_for_the_engines_it_was_recorded_from(tmp_path):
    (run,) = read_runs(write(tmp_path, [recorded()]))

    replayed = calibrate.replay(run, SPECS)

    assert replayed.median_error < 1e-3
    assert all(abs(replayed.error(name)) < 1e-3 for name in calibrate.FIGURES)


def test_a_fit_recovers_the_engine_that_was_recorded_and_foretells_another_run():
    start = replace(SLOW, cost=replace(SLOW.cost, per_token_ms=0.02, floor_ms=40.0, base_ms=12.0))
    part, other = (part_of(recorded(replace(CELL, round=n)), "slow") for n in (1, 2))

    found = fit([part], start, evaluations=250)

    assert loss([part], start) > 0.5
    assert loss([part], found) < 0.15
    assert found.cost.floor_ms == pytest.approx(SLOW.cost.floor_ms, rel=0.1)
    assert found.cost.per_token_ms == pytest.approx(SLOW.cost.per_token_ms, rel=0.25)
    foretold, _ = other.simulated(found)
    assert foretold.ttft_s.mean() == pytest.approx(other.times.ttft_s.mean(), rel=0.05)


def test_a_slower_host_is_told_from_the_beginning_of_a_run():
    run = recorded(specs={"fast": slower_host(FAST, 1.4), "slow": SLOW})

    assert calibrate.on_hosts(run, SPECS).slower == pytest.approx([1.4, 1.0], rel=0.03)


def test_the_pace_of_a_machine_is_told_from_its_time_per_token():
    run = recorded(specs={name: slower(spec, 1.3) for name, spec in SPECS.items()})

    replayed = calibrate.at_pace(run, SPECS)

    assert replayed.slower == pytest.approx([1.3], rel=0.02)
    assert abs(replayed.error("mean")) < 0.1 < abs(calibrate.replay(run, SPECS).error("mean"))


def test_the_first_guess_is_positive_whatever_the_noise():
    alone = {
        "prefill": [{"prompt_tokens": n, "ttft_s": [0.02 + n * 1e-5]} for n in (128, 256, 512)],
        "decode": [{"batch": 1, "tpot_s": [0.02]}, {"batch": 16, "tpot_s": [0.019]}],
    }
    alone["prefill"][1]["ttft_s"] = [0.04]

    guess = first_guess("any", alone, 4096)

    assert min(calibrate.value_of(guess, name) for name in calibrate.FITTED) > 0
    assert guess.kv_blocks == 256


@pytest.mark.parametrize("lengths", [(4096,), (512, 4096)])
def test_few_lengths_of_prompts_give_a_first_guess_too(lengths):
    alone = {
        "prefill": [{"prompt_tokens": n, "ttft_s": [n * 2e-5]} for n in lengths],
        "decode": [{"batch": 1, "tpot_s": [0.003]}, {"batch": 16, "tpot_s": [0.005]}],
    }

    guess = first_guess("any", alone, 4096)

    assert guess.cost.per_token_ms == pytest.approx(0.02)
    assert min(calibrate.value_of(guess, name) for name in calibrate.FITTED) > 0


def test_repeats_have_names_of_their_own_and_the_same_arrivals():
    (first,) = interleaved("made", "mixed", 8.0, ["learned"], (1,), 5.0)
    (again,) = interleaved("made", "mixed", 8.0, ["learned"], (1,), 5.0, repeat=1)

    assert first.name != again.name
    assert first.arrivals(on_cpu=True) == again.arrivals(on_cpu=True)


def test_the_report_shows_errors_and_the_spread_of_real_repeats(tmp_path, monkeypatch, capsys):
    slower = {name: slower_host(spec, 1.2) for name, spec in SPECS.items()}
    runs = [recorded(), recorded(replace(CELL, repeat=1), slower), recorded(replace(CELL, round=2))]
    write(tmp_path, runs)
    arguments = [str(tmp_path), "--fit", "round=1,repeat=0", "--evaluations", "20", "--host"]
    monkeypatch.setattr(sys, "argv", ["calibrate.py", *arguments])

    calibrate.main()

    said = capsys.readouterr().out
    same = next(line for line in said.splitlines() if line.startswith("| same |"))
    assert "| mixed 8.0/s | round_robin | 2 | ±" in same
    assert "| mixed 8.0/s | round_robin | 1 again 1 |" in said
    assert "for the hosts' speed" in said


def test_pictures_are_written_and_small(tmp_path):
    names = ("learned", "round_robin")
    runs = [recorded(replace(CELL, policy=name)) for name in names]
    runs += [recorded(replace(CELL, workload="questions"))]
    runs = read_runs(write(tmp_path, runs))

    made = plot_results.draw_all(runs, tmp_path, "real", saturation_per_s=10.0)

    assert [path.name for path in made] == [
        "real_ttft.png",
        "real_distribution.png",
        "real_start.png",
    ]
    for path in made:
        assert path.read_bytes().startswith(b"\x89PNG")
        assert 5_000 < path.stat().st_size < 100_000
