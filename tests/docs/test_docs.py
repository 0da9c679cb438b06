"""The docs say what is there: commands, options, make targets, links, and Envoy's names."""

from __future__ import annotations

import importlib.util
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from lodestar_extproc import names
from lodestar_extproc.commands.cli import app
from lodestar_extproc.commands.on_demand import COMMANDS as LISTED
from lodestar_extproc.commands.on_demand import FOREIGN, loaded

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of Envoy's message types
    from lodestar_extproc.demo import bootstrap

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page
    for folder in (ROOT, *(ROOT / name for name in ("docs", "benchmarks", "deploy", "envoy")))
    for page in (folder.glob("*.md") if folder == ROOT else folder.rglob("*.md"))
)
ENVOY_FILES = sorted((ROOT / "envoy").rglob("*.yaml"))
COMMANDS: dict[str, Any] = {name: loaded(name) for name in LISTED}
OUR_NAMES = {value for value in vars(names).values() if isinstance(value, str)} | {
    name for value in vars(names).values() if isinstance(value, tuple) for name in value
}


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


def code_lines(text: str) -> list[str]:
    """Lines of code blocks, and code within lines."""
    blocks = re.findall(r"^ *```\w*\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    prose = re.sub(r"^ *```\w*\n.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines()] + re.findall(
        r"`([^`\n]+)`", prose
    )


def check_commands(lines: list[str]) -> None:
    for line in lines:
        for name, rest in re.findall(r"\blodestar-extproc ([a-z][\w-]*)\b([^#|]*)", line):
            assert name in COMMANDS, line
            known = {option for p in COMMANDS[name].params for option in p.opts} | {"--help"}
            given = set(re.findall(r"(?<=\s)--[a-z][\w-]*", rest))
            assert name == FOREIGN or given <= known, line


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - {FOREIGN}))
def test_a_command_has_help_with_examples_that_it_takes(name):
    shown = CliRunner().invoke(app, [name, "--help"])
    assert shown.exit_code == 0
    assert "Examples:" in shown.output
    check_commands((COMMANDS[name].callback.__doc__ or "").splitlines())


def test_the_readme_lists_every_command():
    text = (ROOT / "README.md").read_text()
    listed = re.findall(r"^\| `([\w-]+)` \|", text.partition("## Commands")[2], re.MULTILINE)
    assert set(listed) == COMMANDS.keys()


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_commands_targets_and_scripts_in_the_docs_exist(page):
    lines = code_lines(page.read_text())
    check_commands(lines)
    makefile = (ROOT / "Makefile").read_text()
    for line in lines:
        for target in re.findall(r"^\s*make ([a-z][\w-]*)", line):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), line
        for script in re.findall(r"\bpython ([\w/]+\.py)\b", line):
            assert (ROOT / script).exists(), line
        for module in re.findall(r"\bpython -m (lodestar_extproc[\w.]*)", line):
            assert importlib.util.find_spec(module), line


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_links_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", page.read_text()):
        if re.match(r"https?:|mailto:", target):
            continue
        linked = (page.parent / target).resolve() if target else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), f"{target}#{anchor}"


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("file", ENVOY_FILES, ids=label)
def test_envoys_files_spell_names_as_we_do(file):
    text = file.read_text()
    for name in re.findall(r"\bx-(?:gateway|lodestar)-[a-z-]+", text):
        assert name in OUR_NAMES
    for namespace, key in re.findall(r"%DYNAMIC_METADATA\(([^:)]+):([^)]+)\)%", text):
        assert namespace == names.METADATA_NAMESPACE
        assert key in {
            *(names.DESTINATION, names.DECISION_ID, names.SERVED, names.STREAM_ID),
            names.PREDICTED_TTFT,
        }
    for document in YAML(typ="safe").load_all(text):
        for namespaces in [
            *found(document, "receiving_namespaces"),
            *found(document, "forwarding_namespaces"),
        ]:
            assert names.METADATA_NAMESPACE in namespaces["untyped"]
        for source in (s for sources in found(document, "override_host_sources") for s in sources):
            by_metadata = {
                "key": names.METADATA_NAMESPACE,
                "path": [{"key": names.DESTINATION}],
            }
            assert source in ({"metadata": by_metadata}, {"header": names.DESTINATION})
        for attributes in found(document, "request_attributes"):
            assert set(attributes) <= {names.CLUSTER_NAME}
        for attributes in found(document, "response_attributes"):
            assert set(attributes) <= {names.UPSTREAM_ADDRESS, names.RESPONSE_CODE}


def found(node: Any, key: str) -> list[Any]:
    """Every value under *key*, however deep."""
    if isinstance(node, list):
        return [value for item in node for value in found(item, key)]
    if not isinstance(node, dict):
        return []
    here = [node[key]] if key in node else []
    return here + [value for item in node.values() for value in found(item, key)]


def test_the_default_file_logs_every_tag_that_is_read():
    document = YAML(typ="safe").load(ROOT / "envoy" / "envoy.yaml")
    (tags,) = found(document, "custom_tags")
    read = {value for name, value in vars(names).items() if name.startswith("TAG_")}
    assert read <= {tag["tag"] for tag in tags}
    assert set(bootstrap.TAGS) <= {tag["tag"] for tag in tags}
