import pytest

from asked_engine import PROXIED, SGLANG, VLLM, AskedEngine
from lodestar_extproc.setup.engine_address import read_engine_address
from lodestar_extproc.setup.engine_probe import probe_all
from ports import a_port


async def probed(address: str):
    (engine,) = await probe_all([read_engine_address(address)])
    return engine


async def test_vllm_says_its_version_its_models_and_its_cache():
    async with AskedEngine(VLLM) as engine:
        found = await probed(engine.address)

    assert (found.engine, found.version, found.models) == ("vllm", "0.11.0", ("llama-3.1-8b",))
    assert (found.kv_capacity_tokens, found.cache_block_tokens) == (65536, 32)
    assert (found.health_path, found.has_metrics, found.problem) == ("/health", True, "")


async def test_another_engine_is_known_by_its_metrics():
    async with AskedEngine(SGLANG) as engine:
        found = await probed(engine.address)

    assert (found.engine, found.version, found.kv_capacity_tokens) == ("sglang", "0.5.2", 40000)


async def test_health_is_found_where_it_is():
    async with AskedEngine(PROXIED) as engine:
        found = await probed(engine.address)

    assert (found.health_path, found.has_metrics, found.problem) == ("/v1/models", False, "")


@pytest.mark.parametrize("pages", [{"/v1/models": b"{"}, {"/v1/models": {"data": [1, {}]}}])
async def test_odd_pages_are_no_error(pages):
    async with AskedEngine(pages | {"/health": "", "/metrics": b"\xff{"}) as engine:
        found = await probed(engine.address)

    assert (found.models, found.problem) == ((), "")


async def test_an_engine_that_is_not_there_has_a_problem():
    found = await probed(f"127.0.0.1:{a_port()}")
    assert "Connect" in found.problem


async def test_what_is_no_engine_has_a_problem():
    async with AskedEngine({"/": "hello"}) as server:
        assert (await probed(server.address)).problem == "it answers 404"


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("10.0.0.7:8000", "http://10.0.0.7:8000"),
        ("localhost:8000", "http://127.0.0.1:8000"),
        ("http://vllm-0", "http://vllm-0:80"),
        ("https://vllm-0/v1", "https://vllm-0:443"),
        ("[fd00::7]:8000", "http://[fd00::7]:8000"),
    ],
)
def test_an_address_is_read_as_people_write_it(written, url):
    assert read_engine_address(written).url == url


@pytest.mark.parametrize("written", ["", "vllm-0", "ftp://x:1", "x:port", "x:99999", "http://"])
def test_what_is_no_address_is_refused(written):
    with pytest.raises(ValueError, match=r"engine's address|has no port|[Pp]ort"):
        read_engine_address(written)
