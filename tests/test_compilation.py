"""What may be compiled: the modules that `LODESTAR_COMPILE=1` makes C extensions of."""

import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
COMPILED = PROJECT["tool"]["hatch"]["build"]["hooks"]["custom"]["compiled"]


@pytest.mark.parametrize("path", COMPILED)
def test_what_is_to_be_compiled_exists(path):
    assert (ROOT / path).is_file()


@pytest.mark.parametrize("path", COMPILED)
def test_no_compiled_module_caches_properties(path):
    """mypyc takes functools.cached_property for a property and computes it again each time."""
    assert "cached_property" not in (ROOT / path).read_text()


def test_all_of_it_is_compiled_or_nothing():
    modules = [path.removesuffix(".py").replace("/", ".") for path in COMPILED]
    suffixes = {Path(find_spec(module).origin).suffix for module in modules}

    assert len(suffixes) == 1
