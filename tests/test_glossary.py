"""docs/glossary.md: in order, and true of the code."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lodestar_extproc"
ROW = re.compile(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
CODE = re.compile(r"`([\w/]+\.py)(?:: (\w+))?`")
ROWS = ROW.findall((ROOT / "docs" / "glossary.md").read_text())[1:]


def defined(tree: ast.Module) -> set[str]:
    """The names that a module defines at its top."""
    names = set()
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return names


def test_every_term_stands_once_and_in_order():
    terms = [term.lower() for term, _, _ in ROWS]
    assert len(terms) > 50
    assert terms == sorted(set(terms))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_term_has_a_meaning_and_its_code_exists(row):
    _, meaning, code = row
    assert meaning.endswith(".")
    found = CODE.findall(code)
    assert found
    for file, name in found:
        tree = ast.parse((PACKAGE / file).read_text())
        assert not name or name in defined(tree), f"{file} defines no {name}"


@pytest.mark.parametrize("page", ["README.md", "docs/design.md"])
def test_the_glossary_can_be_found(page):
    assert "glossary.md" in (ROOT / page).read_text()
