"""Whether this checkout can be released: says what is missing, and ends with status 1.

With --version it prints the version and looks at nothing else. Needs Python and git alone.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSION_FILE = Path("lodestar_extproc") / "__init__.py"


def main() -> None:
    if sys.argv[1:] == ["--version"]:
        print(version(ROOT))
        return
    found = problems(ROOT)
    for problem in found:
        print(f"error: {problem}", file=sys.stderr)
    raise SystemExit(1 if found else 0)


def version(root: Path) -> str:
    """The one in the package.

    Raises:
        ValueError: there is none.
    """
    found = re.search(r'^__version__ = "(.+)"$', (root / VERSION_FILE).read_text(), re.MULTILINE)
    if found is None:
        raise ValueError(f"{VERSION_FILE} has no __version__")
    return found[1]


def problems(root: Path) -> list[str]:
    """What speaks against a release of the checkout at *root*, a line each."""
    released = version(root)
    return [
        *_problems_of_git(root, f"v{released}"),
        *problems_of_changelog((root / "CHANGELOG.md").read_text(), released),
    ]


def problems_of_changelog(text: str, released: str) -> list[str]:
    """A release has a section with its day, right after an "Unreleased" that is empty."""
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    titles = [section.partition("\n")[0].strip() for section in sections]
    if titles[:1] != ["Unreleased"]:
        return ['CHANGELOG.md does not begin with "## Unreleased"']
    found = []
    if sections[0].partition("\n")[2].strip():
        found.append('CHANGELOG.md still has lines under "Unreleased": move them under the version')
    if not re.fullmatch(rf"{re.escape(released)} - \d{{4}}-\d\d-\d\d", "".join(titles[1:2])):
        found.append(f'CHANGELOG.md has no "## {released} - YEAR-MONTH-DAY" after "Unreleased"')
    return found


def _problems_of_git(root: Path, tag: str) -> list[str]:
    found = []
    if _git(root, "status", "--porcelain"):
        found.append("there are changes that are not committed: git status")
    if _git(root, "tag", "--list", tag):
        found.append(f"there is a tag {tag} already: raise __version__ in {VERSION_FILE}")
    return found


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(("git", *arguments), cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
