"""CommandsOnDemand: a command's file is loaded when the command is named, not before.

So `--help`, `--version` and the completion of a shell cost a tenth of a second of CPU, whatever the
commands themselves import.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "serve": "Choose an endpoint for every request Envoy asks about.",
        "init": "Write a first Envoy file for your engines.",
        "demo": "Run Envoy, Lodestar and simulated engines, and compare policies.",
        "check": "Find known traps in an Envoy configuration.",
        "simulate": "Serve OpenAI's API from simulated vLLM engines, without a GPU.",
        "load": "Send open-loop load and time the first tokens.",
        "explain": "Show why a request went where it went.",
        "replay": "Report what journals of decisions say about other policies.",
        "bench": "Compare policies on simulated fleets in virtual time.",
        "epp": "Serve a gateway, by the flags of other endpoint pickers.",
    }
)
"""Each stands in a file of its name, as a function of its name; here is its line in the list."""
FOREIGN = "epp"
"""Its flags are another program's, read as that program would."""
ENVIRONMENT_PREFIX = "LODESTAR"


class CommandsOnDemand(TyperGroup):
    """Lists `COMMANDS`, and loads the one that is to run."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, line in COMMANDS.items():
            self.add_command(TyperCommand(name, help=line, short_help=line))

    def list_commands(self, _: Any) -> list[str]:
        """In the order of the list, not of the alphabet."""
        return list(self.commands)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        """See click: the name, the command, and its arguments."""
        name, listed, rest = super().resolve_command(ctx, args)
        return name, None if listed is None else loaded(str(listed.name)), rest


def loaded(name: str) -> Any:
    """The command *name* with its options.

    An option may also be given by the environment: `--log-level` of `serve` as
    `LODESTAR_SERVE_LOG_LEVEL`.
    """
    run: Callable[..., None] = getattr(import_module(f"{__package__}.{name}"), name)
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    settings: dict[str, Any] = {"help_option_names": ["-h", "--help"]}
    if name == FOREIGN:
        settings = {"ignore_unknown_options": True, "allow_extra_args": True}
    else:
        settings["auto_envvar_prefix"] = f"{ENVIRONMENT_PREFIX}_{name.upper()}"
    alone.command(name, context_settings=settings, add_help_option=name != FOREIGN)(run)
    command = typer.main.get_command(alone)
    command.help = _unwrapped_examples(command.help or "")
    for option in command.params:
        # One sentence in the list of commands says it of all; at each it would double the page.
        option.show_envvar = False  # type: ignore[attr-defined]
    return command


def _unwrapped_examples(text: str) -> str:
    r"""Mark indented paragraphs as they are to be left: a command that is wrapped is not copied.

    >>> _unwrapped_examples("Examples:\n\n    lodestar-extproc demo")
    'Examples:\n\n\x08\n    lodestar-extproc demo'
    """
    return re.sub(r"(?m)(?<=\n\n)(?= {2,}\S)", "\b\n", text)
