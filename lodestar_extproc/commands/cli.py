"""The command line. Each command stands in a file of its own; here they are put together."""

from __future__ import annotations

import os
from typing import Annotated

# Two BLAS threads on two busy cores are many times slower than one, and spin for it. This must be
# said before numpy is first imported.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import typer  # noqa: E402

from lodestar_extproc import __version__  # noqa: E402
from lodestar_extproc.commands.bench import bench  # noqa: E402
from lodestar_extproc.commands.check import check  # noqa: E402
from lodestar_extproc.commands.demo import demo  # noqa: E402
from lodestar_extproc.commands.epp import epp, with_command  # noqa: E402
from lodestar_extproc.commands.explain import explain  # noqa: E402
from lodestar_extproc.commands.init import init  # noqa: E402
from lodestar_extproc.commands.load import load  # noqa: E402
from lodestar_extproc.commands.replay import replay  # noqa: E402
from lodestar_extproc.commands.serve import serve  # noqa: E402
from lodestar_extproc.commands.simulate import simulate  # noqa: E402

app = typer.Typer(
    name="lodestar-extproc",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool) -> None:  # noqa: FBT001  (typer calls it so)
    if asked:
        typer.echo(f"lodestar-extproc {__version__}")
        raise typer.Exit


@app.callback()
def root(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """A learned router for LLM engines behind Envoy."""


for command in (serve, init, check, demo, simulate, load, explain, replay, bench):
    app.command()(command)
# Its flags are another program's, read as that program would.
app.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    add_help_option=False,
)(epp)


def main() -> None:
    """The entry point `lodestar-extproc`."""
    app(with_command())
