"""Metrics under the names of other pickers: what clients and a fleet in motion do to them."""

from __future__ import annotations

from lodestar_extproc.metrics.aliases import RequestAliases
from lodestar_extproc.metrics.aliases.requests import MAX_MODELS
from metrics_world import World


def a_page(models: list[str]) -> str:
    aliases = RequestAliases()
    world = World(listeners=[aliases])
    world.metrics.show(aliases)
    for model in models:
        world.serve(1, model=model)
    return world.metrics.page().decode()


def test_models_without_end_take_no_memory_without_end():
    page = a_page([f"model-{n}" for n in range(3 * MAX_MODELS)])
    counted = [line for line in page.splitlines() if line.startswith("llm_d_epp_request_total{")]

    assert len(counted) == MAX_MODELS + 1
    assert any('model_name="other"' in line and line.endswith(" 200.0") for line in counted)


def test_a_model_named_by_an_escape_sequence_breaks_no_page():
    page = a_page(["\x1b[2J\n# EOF", "\ud800"])

    assert 'model_name="\\\\x1b[2J\\\\n# EOF"' in page
    assert "\x1b" not in page


def test_series_of_endpoints_that_left_do_not_pile_up():
    aliases = RequestAliases()
    world = World(3, listeners=[aliases], policy="round_robin")
    world.metrics.show(aliases)
    world.serve(6)

    def counted() -> int:
        page = world.metrics.page().decode()
        return page.count("\nllm_d_epp_scheduler_attempts_total{")

    assert counted() == 3
    world.router.set_endpoints(world.router.fleet.endpoints[:1])
    aliases.forget_who_left(world.view())
    assert counted() == 1
