"""Write an HTML report of clusters, with the pairs that need manual review."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facecore import images
from facecore._utils.atomic_files import write_whole
from facecore._utils.text import count_of
from facecore.collections.clusters import Clusters
from facecore.collections.faces import FoundFace
from facecore.drawing import square_around
from facecore.errors import FacecoreError

__all__ = ["render_report", "write_report"]

_SIDE = 112  # pixels of a thumbnail
_SHOWN = 12  # faces of a group
_GROUPS = 1000
_ALONE = 60


def write_report(clusters: Clusters, path: Path | str) -> None:
    """Write the page of `render_report` atomically.

    Raises
    ------
    InvalidParameter
        The file cannot be written.
    """
    write_whole(Path(path), render_report(clusters).encode("utf-8", "xmlcharrefreplace"))


def render_report(clusters: Clusters) -> str:
    """Render a self-contained HTML page: groups with thumbnails, then doubtful pairs side by side.

    The page shows at most 1,000 groups with 12 faces each and loads no external resources.  The
    keys j and k move between blocks.
    """
    groups = [person for person in clusters.people if len(person.faces) > 1 or person.known]
    alone = [p.faces[0] for p in clusters.people if len(p.faces) == 1 and not p.known]
    faces = sum(len(person.faces) for person in clusters.people)
    shown = [face for person in groups[:_GROUPS] for face in person.faces[:_SHOWN]]
    shown += alone[:_ALONE]
    shown += [face for doubt in clusters.doubts for face in (doubt.first, doubt.second)]
    thumbnails = _thumbnails(shown)

    def figure(face: FoundFace) -> str:
        name = escape(str(face.path))
        source = thumbnails[id(face)]
        image = f'<img src="{source}" alt="{name}">' if source else "<b>cannot be read</b>"
        caption = f"<figcaption>{escape(face.path.name)}</figcaption>"
        return f'<figure title="{name}">{image}{caption}</figure>'

    def block(kind: str, title: str, some: Sequence[FoundFace]) -> str:
        more = f"<p>and {len(some) - _SHOWN:,} more</p>" if len(some) > _SHOWN else ""
        return (
            f'<section class="{kind}" tabindex="0"><h3>{title}</h3>'
            f"<div>{''.join(map(figure, some[:_SHOWN]))}</div>{more}</section>"
        )

    blocks = [
        block("group", f"{escape(p.name)} <small>{count_of(len(p.faces), 'face')}</small>", p.faces)
        for p in groups[:_GROUPS]
    ]
    doubts = [
        block(
            "doubt",
            f"score {doubt.score:.1f}: {'joined' if doubt.joined else 'not joined'}",
            (doubt.first, doubt.second),
        )
        for doubt in clusters.doubts
    ]
    singles = [figure(face) for face in alone[:_ALONE]]
    return _PAGE.format(
        summary=f"{count_of(faces, 'face')}, {count_of(len(groups), 'group')} and "
        f"{count_of(len(alone), 'face')} without a match. Groups with a mean "
        f"score of {clusters.threshold:.1f} or more are joined.",
        groups="".join(blocks),
        doubts="".join(doubts) or "<p>None.</p>",
        alone="".join(singles) or "<p>None.</p>",
        left=f"<p>and {len(alone) - _ALONE:,} more</p>" if len(alone) > _ALONE else "",
    )


def _thumbnails(faces: Iterable[FoundFace]) -> dict[int, str]:
    """Map ``id(face)`` to a data URL; each picture is read once."""
    by_path: dict[Path, list[FoundFace]] = {}
    for face in faces:
        by_path.setdefault(face.path, []).append(face)
    made: dict[int, str] = {}
    for path, some in by_path.items():
        try:
            pixels = images.load(path)
        except FacecoreError:  # the picture was deleted or damaged after embedding
            made.update((id(face), "") for face in some)
            continue
        made.update((id(face), _thumbnail(pixels, face)) for face in some)
    return made


def _thumbnail(pixels: NDArray[np.uint8], face: FoundFace) -> str:
    import cv2

    width, height = face.face.box[2:] - face.face.box[:2]
    small, _ = square_around(pixels, face.face, 1.4 * max(width, height, 1), _SIDE)
    data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>People of a collection</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 1.5rem auto; max-width: 76rem;
 padding: 0 1rem; }}
main {{ display: grid; gap: .75rem; }}
section {{ border: 1px solid #8885; border-radius: 8px; padding: .5rem .75rem; }}
section:focus {{ outline: 3px solid #4a8df0; }}
section div, .alone {{ display: flex; flex-wrap: wrap; gap: .5rem; }}
h3 {{ margin: 0 0 .4rem; }} small {{ font-weight: normal; opacity: .7; }}
figure {{ margin: 0; width: 112px; }} img {{ width: 112px; height: 112px; border-radius: 6px; }}
figcaption {{ font-size: 11px; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }}
kbd {{ border: 1px solid #8888; border-radius: 3px; padding: 0 .3em; }}
nav a {{ margin-right: 1em; }}
</style></head><body>
<h1>People of a collection</h1>
<p>{summary}</p>
<nav><a href="#doubts">Doubtful pairs</a><a href="#alone">Faces without a match</a>
<kbd>j</kbd> next, <kbd>k</kbd> previous</nav>
<h2>Groups</h2><main>{groups}</main>
<h2 id="doubts">Doubtful pairs</h2><main>{doubts}</main>
<h2 id="alone">Faces without a match</h2><div class="alone">{alone}</div>{left}
<script>
const blocks = [...document.querySelectorAll("section")];
addEventListener("keydown", event => {{
  const step = {{ j: 1, k: -1 }}[event.key];
  if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
  const at = blocks.indexOf(document.activeElement);
  const next = blocks[Math.min(Math.max(at + step, 0), blocks.length - 1)];
  if (next) {{ next.focus(); next.scrollIntoView({{ block: "nearest" }}); }}
}});
</script></body></html>
"""
