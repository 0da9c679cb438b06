"""The command line. Each command stands in a file of its own, which is loaded when it is named."""

from __future__ import annotations

import os
from typing import Annotated

# Two BLAS threads on two busy cores are many times slower than one, and spin for it. This must be
# said before numpy is first imported.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import typer  # noqa: E402

from lodestar_extproc import __version__  # noqa: E402
from lodestar_extproc.commands.epp import with_command  # noqa: E402
from lodestar_extproc.commands.on_demand import CommandsOnDemand  # noqa: E402
from lodestar_extproc.commands.say import tell  # noqa: E402

app = typer.Typer(
    name="lodestar-extproc",
    cls=CommandsOnDemand,
    no_args_is_help=True,
    # Plain help: it wraps and never cuts a name, in any width, and comes in half the time.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool) -> None:  # noqa: FBT001  (typer calls it so)
    if asked:
        tell(f"lodestar-extproc {__version__}")
        raise typer.Exit


@app.callback()
def root(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """A learned router for LLM engines behind Envoy.

    Every option can be given by the environment, too: --admin of serve as LODESTAR_SERVE_ADMIN.
    --install-completion teaches your shell to complete commands and options.
    """


def main() -> None:
    """The entry point `lodestar-extproc`."""
    app(with_command())
