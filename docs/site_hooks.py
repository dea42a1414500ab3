"""Hooks of the documentation site (mkdocs.yml).

The pages read well in the repository, and link to each other by repository paths. These hooks
bring the pages outside docs/ onto the site, point links at their place there, and check that no
page loads anything from another host.
"""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

LOG = logging.getLogger("mkdocs.hooks")
REPO = Path(__file__).resolve().parents[1]

# Path in the repository -> path on the site.
OUTSIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "benchmarks/README.md": "benchmarks.md",
    "benchmarks/growth.png": "growth.png",
    "weights/README.md": "models.md",
    "weights/training/README.md": "training.md",
    "weights/training/curve2.png": "curve2.png",
    "weights/training/detection.png": "detection.png",
}
SOURCES = {site: repository for repository, site in OUTSIDE.items()}

_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]*)(#[^)\s]*)?\)")
_FOREIGN = re.compile(
    r"<(?:script|img|iframe)[^>]*\ssrc=\"?(?:https?:)?//|"
    r"<link[^>]*rel=\"?(?:stylesheet|preconnect|icon)[^>]*href=\"?(?:https?:)?//"
)


def on_files(files: Any, config: Any) -> Any:
    """Add the pages and pictures from outside docs/."""
    for repository, site in OUTSIDE.items():
        files.append(File.generated(config, site, abs_src_path=str(REPO / repository)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links at the site; keep only the text of links to files that it does not show."""
    here = page.file.src_uri
    source = SOURCES.get(here, f"docs/{here}")

    def moved(match: re.Match[str]) -> str:
        mark, text, target, anchor = match.groups(default="")
        if not target or "://" in target:
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if path in OUTSIDE:
            path = OUTSIDE[path]
        elif path.startswith("docs/"):
            path = path.removeprefix("docs/")
        else:
            return text
        return f"{mark}[{text}]({posixpath.relpath(path, posixpath.dirname(here) or '.')}{anchor})"

    return _LINK.sub(moved, markdown)


def on_post_page(output: str, page: Any, **_: Any) -> None:
    """Warn, which fails a strict build, where a page loads from another host."""
    if found := _FOREIGN.search(output):
        LOG.warning("%s loads from another host: %s", page.file.src_uri, found[0])
