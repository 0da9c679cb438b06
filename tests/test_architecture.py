"""The shape of the code, held by the code: lengths, state, where the outside world may be."""

import ast
from collections import Counter
from pathlib import Path

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
    "sharing",
    "transport",
    "commands",
)
ASYNC_FILES = (
    "supervision.py",
    "journal/journal.py",
    "demo",
    "fleet/engine_client.py",
    "fleet/engine_connection.py",
    "fleet/kv_events/follower.py",
    "fleet/kv_events/following.py",
    "fleet/poller.py",
    "fleet/scraper.py",
    "fleet/prober.py",
    "setup/engine_probe.py",
)


TREES = {str(p.relative_to(PACKAGE)): ast.parse(p.read_text()) for p in FILES}


def functions(tree: ast.Module):
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def body_lines(node) -> int:
    docstring = ast.get_docstring(node, clean=False)
    skipped = 0 if docstring is None else docstring.count("\n") + 1
    return node.end_lineno - node.lineno + 1 - skipped


def test_a_file_can_be_read_in_one_sitting():
    lengths = {str(p.relative_to(PACKAGE)): p.read_text().count("\n") for p in FILES}
    offenders = {name: n for name, n in lengths.items() if n > MAX_FILE_LINES}

    assert not offenders


def test_a_file_says_what_it_is():
    offenders = [name for name, tree in TREES.items() if not ast.get_docstring(tree)]

    assert not offenders


def test_a_function_does_one_job():
    offenders = {
        f"{name}: {f.name}": body_lines(f)
        for name, tree in TREES.items()
        for f in functions(tree)
        if body_lines(f) > MAX_FUNCTION_LINES
    }

    assert not offenders


def test_nine_in_ten_functions_are_short():
    lengths = sorted(body_lines(f) for tree in TREES.values() for f in functions(tree))

    assert lengths[int(0.9 * len(lengths))] <= 30


def mutable_globals(tree: ast.Module) -> list[str]:
    found = []
    for node in tree.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = [t.id for t in targets if isinstance(t, ast.Name)]
        mutable = ast.Dict | ast.List | ast.Set | ast.ListComp | ast.DictComp
        if isinstance(node.value, mutable) and names != ["__all__"]:
            found += names
    return found


def test_nothing_changes_at_module_level():
    offenders = {name: found for name, tree in TREES.items() if (found := mutable_globals(tree))}

    assert not offenders


def test_only_the_edges_wait():
    offenders = [
        f"{name}: {f.name}"
        for name, tree in TREES.items()
        if not name.startswith((*ASYNC_FOLDERS, *ASYNC_FILES))
        for f in functions(tree)
        if isinstance(f, ast.AsyncFunctionDef)
    ]

    assert not offenders


def catches_everything(node: ast.AST) -> bool:
    """`except Exception`, or a context manager's `isinstance(error, Exception)`."""
    match node:
        case ast.ExceptHandler(type=ast.Name(id="Exception")):
            return True
        case ast.Call(func=ast.Name(id="isinstance"), args=[_, ast.Name(id="Exception")]):
            return True
    return False


def test_whatever_goes_wrong_is_caught_at_the_edge_and_nowhere_else():
    found = [
        name for name, tree in TREES.items() for node in ast.walk(tree) if catches_everything(node)
    ]

    services = "transport/http2/stream.py"
    assert sorted(found) == ["extproc/error_boundary.py", *2 * ["supervision.py"], services]


def test_a_class_name_is_used_once():
    names = Counter(
        node.name
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    )
    offenders = [name for name, n in names.items() if n > 1]

    assert not offenders


def unexplained(path: Path) -> list[str]:
    """Numbers at module level without a word beside, above or below them."""
    lines, tree = path.read_text().splitlines(), ast.parse(path.read_text())
    found = []
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        if not is_numeric_constant(node):
            continue
        beside = any("#" in line for line in lines[node.lineno - 1 : node.end_lineno])
        above = heads_a_run_with_a_comment(lines, node.lineno)
        below = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if not (beside or above or below):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            found.append(ast.unparse(target))
    return found


def is_numeric_constant(node: ast.stmt) -> bool:
    """An assignment of a number, or of several: `A, B = 1, 2`, `A = (0.1, 0.2)`, `A = 64 * 2**20`."""
    if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
        return False
    leaves = [n for n in ast.walk(node.value) if isinstance(n, ast.Constant | ast.Name | ast.Call)]
    return bool(leaves) and all(
        isinstance(n, ast.Constant) and isinstance(n.value, int | float) and n.value is not True
        for n in leaves
    )


def heads_a_run_with_a_comment(lines: list[str], lineno: int) -> bool:
    """Whether a comment stands above the unbroken run of lines that *lineno* belongs to."""
    at = lineno - 2
    while at >= 0 and lines[at].strip() and not lines[at].lstrip().startswith(("#", '"""')):
        at -= 1
    return at >= 0 and lines[at].lstrip().startswith("#")


def test_a_number_says_where_it_is_from():
    offenders = {
        str(path.relative_to(PACKAGE)): found for path in FILES if (found := unexplained(path))
    }

    assert not offenders
