"""The site builds strictly, and the program on its page about the library runs."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@pytest.mark.long
@pytest.mark.skipif(importlib.util.find_spec("material") is None, reason="needs mkdocs-material")
def test_the_site_builds_without_a_warning(tmp_path):
    command = (sys.executable, "-m", "mkdocs", "build", "--site-dir", str(tmp_path))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr  # strict: a warning is an error
    assert (tmp_path / "quickstart" / "nothing" / "index.html").is_file()


def pages_of(nav: object) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [page for part in parts for page in pages_of(part)]


def test_every_page_for_people_is_on_the_map_of_the_site():
    named = pages_of(YAML(typ="safe").load(ROOT / "mkdocs.yml")["nav"])
    here = {str(p.relative_to(DOCS)) for p in (*DOCS.glob("*.md"), *DOCS.glob("quickstart/*.md"))}

    assert len(named) == len(set(named))
    # Who makes a release reads it in the repository.
    assert set(named) == here - {"releasing.md"}


def test_the_program_on_the_page_about_the_library_says_what_the_page_says():
    page = (DOCS / "library.md").read_text()
    (program,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (shown,) = re.findall(r"^```text\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    done = subprocess.run(
        (sys.executable, "-c", program), cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    pattern = re.escape(shown.strip()).replace(r"\.\.\.\.", r"\.\d+")
    assert re.fullmatch(pattern, done.stdout.strip()), done.stdout
