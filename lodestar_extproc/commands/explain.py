"""The command `explain`: why a request went where it went, asked of a running service.

It knows the admin server's answers, not how they come about.
"""

from __future__ import annotations

import http.client
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NoReturn

import orjson
import typer
from rich.console import Console
from rich.table import Table

TIMEOUT_S = 5.0  # for an answer of the admin page, which takes milliseconds
NOT_FOUND, UNREACHABLE = 1, 2  # exit statuses
UNKNOWN = "-"


class NoAnswer(Exception):  # noqa: N818  (the condition's name)
    """The admin server did not answer as one; the message says what to do."""


class NoSuchDecision(Exception):  # noqa: N818  (the condition's name)
    """The decision is not known there, or no longer."""


def explain(
    decision: Annotated[
        str | None,
        typer.Argument(
            help="A decision id, or the x-request-id of a request.",
            metavar="ID",
            show_default="lists the last decisions",
        ),
    ] = None,
    *,
    admin: Annotated[
        str, typer.Option(help="Admin server of the service.")
    ] = "http://127.0.0.1:9090",
    limit: Annotated[
        int, typer.Option(min=1, max=1000, help="How many decisions to list without an ID.")
    ] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Show why a request went where it went: every candidate, what was expected, what followed.

    Exit status: 0, 1 the decision is not among the last ones, 2 the service does not answer.

    Examples:

        lodestar-extproc explain

        lodestar-extproc explain 0c5f9e0e-6d4b-4f3a-9c0e-1f2d3c4b5a69

        lodestar-extproc explain engines.5f1d3a9b2c4e6f70 --admin http://10.0.0.5:9090 --json
    """
    path = f"/decisions?limit={limit}"
    if decision is not None:
        path = f"/explain/{urllib.parse.quote(decision, safe='')}"
    try:
        answer = _get(admin, path)
    except NoSuchDecision as error:
        _fail(f"{decision} is {error}", NOT_FOUND)
    except NoAnswer as error:
        _fail(str(error), UNREACHABLE)
    # An IPv6 address stands in brackets, as markup does.
    console = Console(highlight=False, markup=False)
    if as_json:
        typer.echo(orjson.dumps(answer, option=orjson.OPT_INDENT_2))
    elif decision is None:
        _show_decisions(answer["decisions"], console)
    else:
        _show_explanation(answer, console)


def _fail(message: str, status: int) -> NoReturn:
    typer.secho(f"error: {message}", fg="red", err=True)
    raise typer.Exit(status)


def _get(admin: str, path: str) -> dict[str, Any]:
    """What the admin server at *admin* answers for *path*.

    Raises:
        NoSuchDecision: it does not know the decision.
        NoAnswer: it does not answer, or something else does.
    """
    url = (admin if "://" in admin else f"http://{admin}").rstrip("/") + path
    if not url.startswith(("http://", "https://")):
        raise NoAnswer(f"{admin} is no HTTP address; for example http://127.0.0.1:9090")
    # An operator's own server is not behind a proxy, whatever the environment says.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=TIMEOUT_S) as response:
            found = orjson.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            said = _error_in(error.read())
        if error.code == 404 and said:
            raise NoSuchDecision(said) from None
        raise NoAnswer(f"{url} answered {error.code}: is it Lodestar's admin server?") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise NoAnswer(
            f"no answer from {url} ({reason}); is `lodestar-extproc serve` running there, "
            "and --admin its --admin?"
        ) from None
    if not isinstance(found, dict):
        raise NoAnswer(f"{url} is not Lodestar's admin server")
    return found


def _error_in(body: bytes) -> str:
    """What the server says is wrong; empty where it is not ours."""
    try:
        return str(orjson.loads(body)["error"])
    except (ValueError, LookupError, TypeError):
        return ""


def _show_decisions(decisions: Sequence[Mapping[str, Any]], console: Console) -> None:
    if not decisions:
        console.print("no decisions yet")
        return
    table = Table("age s", "decision", "request", "chosen", "reason", "outcome", box=None)
    for name in ("predicted s", "TTFT s"):
        table.add_column(name, justify="right")
    for each in decisions:
        table.add_row(
            _number(each["age_s"], 1),
            each["decision_id"],
            each["request_id"] or UNKNOWN,
            each["chosen"],
            each["reason"],
            each["outcome"] or "open",
            _number(each["predicted_ttft_s"]),
            _number(each["ttft_s"]),
        )
    console.print(table)


def _show_explanation(answer: Mapping[str, Any], console: Console) -> None:
    console.print(
        f"{answer['decision_id']}, request {answer['request_id'] or UNKNOWN}, "
        f"{_number(answer['age_s'], 1)} s ago: {answer['kind']} for {answer['model'] or UNKNOWN}, "
        f"priority {answer['priority']}, "
        f"{_number(answer['prompt_tokens'], 0)} prompt tokens; propensity "
        f"{_number(answer['propensity'])}",
        soft_wrap=True,
    )
    console.print(_candidates(answer))
    for policy, endpoint in answer["shadows"].items():
        console.print(f"Shadow policy {policy} would have chosen {endpoint}.", soft_wrap=True)
    console.print(answer["explanation"], soft_wrap=True)


def _candidates(answer: Mapping[str, Any]) -> Table:
    """Best first; the endpoint that served is marked."""
    table = Table("", "endpoint", "accelerator", box=None)
    for name in ("TTFT s", "matched", "uncached", "prefills", "queued tokens", "decodes", "age s"):
        table.add_column(name, justify="right")
    for each in answer["candidates"]:
        served = each["endpoint"] == answer["served"]
        table.add_row(
            str(each["rank"]),
            each["endpoint"] + (" (served)" if served else ""),
            each["accelerator"],
            _number(each["predicted_ttft_s"]),
            _number(each["matched_tokens"], 0),
            _number(each["uncached_tokens"], 0),
            _number(each["prefill_requests"], 0),
            _number(each["prefill_tokens"], 0),
            _number(each["decode_requests"], 0),
            _number(each["scrape_age_s"], 1),
            style="bold" if each["rank"] == 1 else None,
        )
    return table


def _number(value: float | None, digits: int = 3) -> str:
    return UNKNOWN if value is None else f"{value:.{digits}f}"
