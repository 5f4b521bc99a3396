"""A hook of mkdocs: links of pages to files of the repository outside docs/ lead to the repository."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: object) -> str:
    """Return the text of a page with such links as URLs; raise for one that leads nowhere."""
    folder = posixpath.join("docs", posixpath.dirname(page.file.src_uri))

    def absolute(found: re.Match[str]) -> str:
        path, sign, anchor = found[1].partition("#")
        place = posixpath.normpath(posixpath.join(folder, path))
        if place.startswith("docs/"):
            return found[0]
        if not (ROOT / place).exists():
            raise FileNotFoundError(f"{page.file.src_uri} links to {path}, which is not there")
        kind = "tree" if (ROOT / place).is_dir() else "blob"
        return f"]({config.repo_url.rstrip('/')}/{kind}/main/{place}{sign}{anchor})"

    return re.sub(r"\]\((\.\./[^)\s]+)\)", absolute, markdown)
