"""A hook of mkdocs: links from docs/ to other files of the repository lead to their home."""

from __future__ import annotations

import posixpath
import re
from typing import Any

LINK = re.compile(r"(\]\()((?:\.\./)+[^)#\s]+)(#[^)\s]*)?\)")
FOLDER = re.compile(r"(\]\()((?![a-z]+:)[^)#\s]+/)\)")


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """*markdown* with every link that leaves docs/, or leads to a folder, made whole."""
    folder = posixpath.dirname(page.file.src_uri)
    repository = config["repo_url"].rstrip("/")
    home = repository + "/blob/main/"

    def listed(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", folder, link[2]))
        return f"{link[1]}{repository}/tree/main/{path})"

    def whole(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", folder, link[2]))
        if path == "docs" or path.startswith("docs/"):
            return link[0]
        return f"{link[1]}{home}{path}{link[3] or ''})"

    return LINK.sub(whole, FOLDER.sub(listed, markdown))
