"""Every class of the package serves the package: none is there for tests and benchmarks alone."""

import ast
from collections import Counter
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "lodestar_extproc"
TREES = [
    ast.parse(path.read_text())
    for path in sorted(PACKAGE.rglob("*.py"))
    if "generated" not in path.parts
]


def names_read(tree: ast.AST) -> Counter[str]:
    """How often *tree* reads each name, alone or as an attribute; importing it is no use."""
    names: Counter[str] = Counter()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Load()) | ast.Attribute(attr=name, ctx=ast.Load()):
                names[name] += 1
    return names


def test_a_class_in_the_package_is_used_in_the_package():
    everywhere: Counter[str] = sum((names_read(tree) for tree in TREES), Counter())
    classes = [n for tree in TREES for n in ast.walk(tree) if isinstance(n, ast.ClassDef)]
    # What a class says of itself is no use of it.
    offenders = [c.name for c in classes if everywhere[c.name] <= names_read(c)[c.name]]

    assert not offenders
