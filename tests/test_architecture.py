"""The shape of the code, held by the code: lengths, state, where the outside world may be."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "lodestar_extproc"
FILES = sorted(p for p in PACKAGE.rglob("*.py") if "generated" not in p.parts)
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 50
ASYNC_FOLDERS = (
    "extproc",
    "admin",
    "fleet/discovery",
    "simulator",
    "evaluation",
    "service",
    "commands",
)
ASYNC_FILES = (
    "journal/journal.py",
    "demo",
    "fleet/poller.py",
    "fleet/scraper.py",
    "fleet/prober.py",
)


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def functions(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def body_lines(node) -> int:
    docstring = ast.get_docstring(node, clean=False)
    skipped = 0 if docstring is None else docstring.count("\n") + 1
    return node.end_lineno - node.lineno + 1 - skipped


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_can_be_read_in_one_sitting(path):
    text = path.read_text()

    assert text.count("\n") <= MAX_FILE_LINES
    assert ast.get_docstring(ast.parse(text)), "a file says what it is"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_function_does_one_job(path):
    long = [
        f"{f.name}: {body_lines(f)}" for f in functions(path) if body_lines(f) > MAX_FUNCTION_LINES
    ]

    assert not long


def test_nine_in_ten_functions_are_short():
    lengths = sorted(body_lines(f) for path in FILES for f in functions(path))

    assert lengths[int(0.9 * len(lengths))] <= 30


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_changes_at_module_level(path):
    for node in ast.parse(path.read_text()).body:
        value = getattr(node, "value", None)
        if isinstance(node, ast.Assign | ast.AnnAssign) and value is not None:
            names = [
                t.id
                for t in getattr(node, "targets", [getattr(node, "target", None)])
                if isinstance(t, ast.Name)
            ]
            mutable = isinstance(value, ast.Dict | ast.List | ast.Set | ast.ListComp | ast.DictComp)
            assert not mutable or names == ["__all__"], names


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_the_edges_wait(path):
    name = name_of(path)
    if name.startswith((*ASYNC_FOLDERS, *ASYNC_FILES)):
        return
    waits = [f.name for f in functions(path) if isinstance(f, ast.AsyncFunctionDef)]

    assert not waits


def catches_everything(node: ast.AST) -> bool:
    """`except Exception`, or a context manager's `isinstance(error, Exception)`."""
    match node:
        case ast.ExceptHandler(type=ast.Name(id="Exception")):
            return True
        case ast.Call(func=ast.Name(id="isinstance"), args=[_, ast.Name(id="Exception")]):
            return True
    return False


def test_whatever_goes_wrong_is_caught_at_the_edge_and_nowhere_else():
    trees = ((name_of(path), ast.parse(path.read_text())) for path in FILES)
    found = [name for name, tree in trees for node in ast.walk(tree) if catches_everything(node)]

    assert found == ["extproc/server.py"]


def test_no_class_name_stands_twice():
    found = [
        node.name
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]

    assert sorted(name for name in set(found) if found.count(name) > 1) == []
