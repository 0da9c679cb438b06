"""Compiles the simulator once, before many test processes would each do so for a quarter of a minute.

What is compiled stays beside the modules, where they find it.
"""

from pathlib import Path

from lodestar_extproc.evaluation.trial import Cell, Trial, run_trial
from lodestar_extproc.simulator.engine import warm_up

CELL = Cell("prefix50", "a30x8", "steady", None, (13.0,))


def main() -> None:
    warm_up()
    list(run_trial(Trial(CELL, seed=1, n_requests=50, contenders=("learned",), traces=Path())))


if __name__ == "__main__":
    main()
