"""HTML page of a report: tables and figures, escaped, without scripts or external resources."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING, Any

from facecore.engine import FaceEngine
from facecore.evaluation import plots
from facecore.evaluation.metrics import ErrorCurve
from facecore.evaluation.results import FolderResult, LfwResult, OperatingPoint, Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["render"]


def render(
    result: Result, engine: FaceEngine, facts: dict[str, Any], curve: ErrorCurve | None
) -> str:
    """Render the HTML page of a result, with embedded figures and without scripts.

    Parameters
    ----------
    result : Result
    engine : FaceEngine
    facts : dict
        The report's JSON: pack, data and versions.
    curve : ErrorCurve or None
        None without genuine or without impostor comparisons.
    """
    figures = "".join(
        f'<figure><h2>{escape(title)}</h2><img alt="{escape(title)}" src="{_svg(figure)}">'
        f"<figcaption>{escape(text)}</figcaption></figure>"
        for title, text, figure in _figures(result, engine, curve)
    )
    pack, versions = facts["pack"], facts["versions"]
    origin = {
        "measured": facts["source"],
        "created": facts["created"],
        "pack": f"{pack['name']} {pack['version']}",
        "contract": pack["contract_id"],
        **{
            f"{role} {model['file']}": f"SHA-256 {model['sha256']}"
            for role, model in pack["models"].items()
        },
        "calibrated on": f"{pack['calibration']['dataset']}; {pack['calibration']['method']}",
        **{f"seconds {name}": f"{seconds:.2f}" for name, seconds in result.seconds.items()},
        **versions,
    }
    summary = {line[:20].strip(): line[20:] for line in result.own_lines()}
    summary["no vector for"] = result.losses
    notes = "".join(f"<li>{escape(note)}</li>" for note in result.notes)
    return _PAGE.format(
        title=escape(facts["title"]),
        summary=_rows(summary),
        points=_points([("", point) for point in result.points]),
        notes=f"<h2>Notes</h2><ul>{notes}</ul>" if notes else "",
        figures=figures,
        groups=_groups(result),
        cmc=_cmc(result),
        origin=_rows(origin),
    )


def _figures(
    result: Result, engine: FaceEngine, curve: ErrorCurve | None
) -> list[tuple[str, str, Figure]]:
    """List title, caption and figure of each plot."""
    made: list[tuple[str, str, Figure]] = []
    points, histograms = result.points, result.histograms
    if histograms.impostor.any():
        made.append(
            (
                "Does the score keep its promise?",
                "Below the dashed line, fewer strangers pass than promised; above it, more. "
                "Bars are 95 % intervals.",
                plots.plot_calibration(histograms, engine.calibration, points),
            )
        )
    if histograms.genuine.any() or histograms.impostor.any():
        made.append(
            (
                "Similarity of genuine and impostor pairs",
                "Pairs to the right of a dashed line pass at that score.",
                plots.plot_histograms(histograms, points),
            )
        )
    if curve is not None:
        made.append(
            (
                "ROC",
                "Closer to the upper left is better. With many comparisons, rates of fewer than "
                "ten false matches are omitted.",
                plots.plot_roc(curve, points),
            )
        )
        made.append(
            (
                "DET",
                f"Closer to the lower left is better. Equal error rate {curve.eer():.3%}.",
                plots.plot_det(curve, points),
            )
        )
    if isinstance(result, LfwResult):
        made.append(
            (
                "Accuracy by fold",
                "Each fold at the best threshold of the other folds.",
                plots.plot_folds(result.fold_accuracy),
            )
        )
    if any(
        point.fmr and point.score == result.threshold
        for group in result.groups
        for point in group.points
    ):
        made.append(
            (
                "False matches within groups",
                "Both people of a pair belong to the group. Bars are 95 % intervals.",
                plots.plot_groups(result.groups, result.threshold),
            )
        )
    return made


def _svg(figure: Figure) -> str:
    """Encode a figure as a data URL."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()


def _rows(cells: dict[str, str]) -> str:
    rows = (f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in cells.items())
    return f"<table>{''.join(rows)}</table>"


def _points(named: list[tuple[str, OperatingPoint]]) -> str:
    grouped = any(name for name, _ in named)
    rows = []
    for name, point in named:
        nominal = f"{100 * point.nominal_fmr:.3g} %{' (extrapolated)' * point.extrapolated}"
        cells = [
            *([name] if grouped else []),
            f"{point.score:g}",
            f"{point.similarity:.4f}",
            nominal,
            *(str(rate or "not measured") for rate in (point.fmr, point.fnmr)),
            *(
                f"{rate.count:,} of {rate.total:,}" if rate else ""
                for rate in (point.fmr, point.fnmr)
            ),
        ]
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    heads = ["group"] * grouped + [
        "score",
        "similarity",
        "nominal FMR",
        "measured FMR (95 %)",
        "FNMR (95 %)",
        "false matches",
        "false non-matches",
    ]
    head = "".join(f"<th>{text}</th>" for text in heads)
    return f'<table class="grid"><tr>{head}</tr>{"".join(rows)}</table>'


def _groups(result: Result) -> str:
    named = [
        (f"{group.attribute} {group.group} ({group.images:,} pictures)", point)
        for group in result.groups
        for point in group.points
    ]
    return f"<h2>Rates within groups</h2>{_points(named)}" if named else ""


def _cmc(result: Result) -> str:
    if not isinstance(result, FolderResult) or not result.identification:
        return ""
    shares = {f"rank {k}": f"{share:.2%}" for k, share in enumerate(result.identification.cmc, 1)}
    return f"<h2>Identification rate by rank (CMC)</h2>{_rows(shares)}"


_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
  max-width: 1240px; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.6rem; margin: 0 0 1rem; }}
h2 {{ font-size: 1.1rem; margin: 1.5rem 0 .4rem; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ text-align: left; vertical-align: top; padding: .2rem 1rem .2rem 0;
  border-bottom: 1px solid #e4e4e4; overflow-wrap: anywhere; }}
.grid td {{ white-space: nowrap; }}
th {{ font-weight: 600; white-space: nowrap; }}
.scroll {{ overflow-x: auto; }}
.figures {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 540px), 1fr));
  gap: 1rem 2rem; }}
figure {{ margin: 0; }}
figure img {{ width: 100%; height: auto; }}
figcaption {{ color: #444; }}
@media print {{ figure {{ break-inside: avoid; }} }}
</style>
</head>
<body>
<h1>{title}</h1>
{summary}
<h2>At the documented scores</h2>
<div class="scroll">{points}</div>
{notes}
<div class="figures">{figures}</div>
<div class="scroll">{groups}</div>
{cmc}
<h2>Where the numbers come from</h2>
<div class="scroll">{origin}</div>
</body>
</html>
"""
