"""What `explain` prints of the admin server's answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from lodestar_extproc.evaluation.fitted_table import FittedTable

UNKNOWN = "-"


def show_decisions(decisions: Sequence[Mapping[str, Any]], console: Console) -> None:
    """The last ones, one a row."""
    if not decisions:
        console.print("no decisions yet")
        return
    columns = ("age s", "decision", "request", "chosen", "reason", "outcome")
    table = FittedTable((*columns, "predicted s", "TTFT s"), left=6)
    for each in decisions:
        table.add(
            number(each["age_s"], 1),
            each["decision_id"],
            each["request_id"] or UNKNOWN,
            each["chosen"],
            each["reason"],
            each["outcome"] or "open",
            number(each["predicted_ttft_s"]),
            number(each["ttft_s"]),
        )
    console.print(table)


def show_explanation(answer: Mapping[str, Any], console: Console) -> None:
    """One decision: the request, every candidate, and what came of it."""
    console.print(
        f"{answer['decision_id']}, request {answer['request_id'] or UNKNOWN}, "
        f"{number(answer['age_s'], 1)} s ago: {answer['kind']} for {answer['model'] or UNKNOWN}, "
        f"priority {answer['priority']}, "
        f"{number(answer['prompt_tokens'], 0)} prompt tokens; propensity "
        f"{number(answer['propensity'])}",
        soft_wrap=True,
    )
    console.print(answer["explanation"], soft_wrap=True)
    console.print()
    console.print(_candidates(answer))
    if any(each.get("costs_s") for each in answer["candidates"]):
        console.print()
        console.print(_costs(answer))
    for policy, endpoint in answer["shadows"].items():
        console.print(f"Shadow policy {policy} would have chosen {endpoint}.", soft_wrap=True)


def _candidates(answer: Mapping[str, Any]) -> FittedTable:
    """Best first; the endpoint that served is marked."""
    figures = ("TTFT s", "matched", "uncached", "prefills", "queued tokens", "decodes", "age s")
    table = FittedTable(("", "endpoint", "accelerator", *figures), left=3)
    for each in answer["candidates"]:
        served = each["endpoint"] == answer["served"]
        table.add(
            str(each["rank"]),
            each["endpoint"] + (" (served)" if served else ""),
            each["accelerator"],
            number(each["predicted_ttft_s"]),
            number(each["matched_tokens"], 0),
            number(each["uncached_tokens"], 0),
            number(each["prefill_requests"], 0),
            number(each["prefill_tokens"], 0),
            number(each["decode_requests"], 0),
            number(each["scrape_age_s"], 1),
            emphasis=each["rank"] == 1,
        )
    return table


def _costs(answer: Mapping[str, Any]) -> FittedTable:
    """What each candidate would have cost, part by part; the cheapest was the predictor's."""
    names = next(each["costs_s"] for each in answer["candidates"] if each.get("costs_s"))
    columns = [name.replace("_", " ") for name in names]
    table = FittedTable(
        ("", "endpoint", "80 % of TTFT", *columns, "cost s"),
        left=2,
        title="what it would have cost, in seconds",
    )
    for each in answer["candidates"]:
        if not each.get("costs_s"):
            continue
        table.add(
            str(each["rank"]),
            each["endpoint"],
            f"{number(each['ttft_low_s'])} to {number(each['ttft_high_s'])}",
            *(number(each["costs_s"][name]) for name in names),
            number(each["cost_s"]),
            emphasis=each["rank"] == 1,
        )
    return table


def number(value: float | None, digits: int = 3) -> str:
    """*value* for people; a mark where it is unknown."""
    return UNKNOWN if value is None else f"{value:.{digits}f}"
