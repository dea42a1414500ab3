"""Plots of evaluation results with matplotlib (extra ``evaluation``).

Every function returns a new `matplotlib.figure.Figure`; pyplot, which keeps global state and
opens windows, is never imported.  The colours are from M. Okabe and K. Ito, "Color Universal
Design", 2008, and safe for colour-blind readers; no line is identified by colour alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facecore._utils.extras import require_extra
from facecore.errors import InvalidParameter

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from facecore.evaluation.all_pairs import Histograms
    from facecore.evaluation.intervals import Rate
    from facecore.evaluation.metrics import ErrorCurve
    from facecore.evaluation.quality import DiscardCurve
    from facecore.evaluation.results import GroupRates, OperatingPoint
    from facecore.matching.calibration import Calibration

__all__ = [
    "plot_calibration",
    "plot_det",
    "plot_discard",
    "plot_folds",
    "plot_groups",
    "plot_histograms",
    "plot_roc",
]

_BLUE, _ORANGE, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "#555555"
_PROBIT_TICKS = [1e-7, 1e-6, 1e-5, 1e-4, 0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4]


def plot_roc(curve: ErrorCurve, points: Sequence[OperatingPoint] = ()) -> Figure:
    """Plot the true accept rate over the logarithmic false match rate, with thresholds."""
    figure, axes = _figure()
    rare = _rarest(curve.fmr)
    shown = curve.fmr > rare
    worst = float(curve.tar[~shown].max())  # TAR at the left edge of the plot
    x, y = np.append(rare, curve.fmr[shown]), np.append(worst, curve.tar[shown])
    axes.step(x, 100 * y, where="post", color=_BLUE, linewidth=2, clip_on=False, zorder=3)
    axes.set(
        xscale="log",
        xlim=(rare, 1),
        ylim=(100 * max(0.0, worst - 0.1 * (1 - worst) - 0.002), 100.3 - 0.1 * worst),
        xlabel="false match rate (share of impostor comparisons, log)",
        ylabel="true accept rate (% of genuine comparisons)",
    )
    for point in points:
        if point.fmr and point.fnmr and point.fmr.value >= rare:
            where = (point.fmr.value, 100 - 100 * point.fnmr.value)
            axes.plot(*where, "o", color=_ORANGE, zorder=4)
            _name(axes, f"score {point.score:g}", where)
    return figure


def plot_det(curve: ErrorCurve, points: Sequence[OperatingPoint] = ()) -> Figure:
    """Plot the detection error trade-off on normal deviate (probit) axes.

    References
    ----------
    .. [1] A. Martin et al., "The DET curve in assessment of detection task performance",
           Eurospeech 1997, DTIC ADA530509
    """
    figure, axes = _figure()
    rare, few = _rarest(curve.fmr), _rarest(curve.fnmr)
    high = 0.5
    # Rates too low to measure are drawn along the edge of the plot.
    x, y = np.clip(curve.fmr, rare, high), np.clip(curve.fnmr, few, high)
    axes.plot(_probit(x), _probit(y), color=_BLUE, linewidth=2, clip_on=False, zorder=3)
    equal = _probit([max(rare, few), high])
    axes.plot(equal, equal, ":", color=_GREY, label="FMR = FNMR")
    for point in points:
        if point.fmr and point.fnmr and point.fmr.value >= rare and point.fnmr.value >= few:
            where = tuple(_probit([point.fmr.value, point.fnmr.value]).tolist())
            axes.plot(*where, "o", color=_ORANGE, zorder=4)
            _name(axes, f"score {point.score:g}", where, above=True)
    for axis, least in ((axes.xaxis, rare), (axes.yaxis, few)):
        ticks = [tick for tick in _PROBIT_TICKS if tick >= least]
        axis.set_ticks(
            _probit(ticks), [f"{100 * tick:.5f}".rstrip("0").rstrip(".") for tick in ticks]
        )
    axes.set(
        xlim=_probit([rare, high]),
        ylim=_probit([few, high]),
        xlabel="false match rate (%, normal deviates)",
        ylabel="false non-match rate (%, normal deviates)",
    )
    axes.legend(frameon=False)
    return figure


def plot_histograms(histograms: Histograms, points: Sequence[OperatingPoint] = ()) -> Figure:
    """Plot the similarity densities of genuine and impostor pairs, each with area one."""
    figure, axes = _figure()
    sides = (
        ("impostor", histograms.impostor, _ORANGE, "\\\\\\"),
        ("genuine", histograms.genuine, _BLUE, "///"),
    )
    edges = histograms.edges()
    filled = np.flatnonzero(histograms.genuine + histograms.impostor)
    if not len(filled):
        raise InvalidParameter("there is no comparison to draw")
    for name, counts, colour, hatch in sides:
        if total := int(counts.sum()):
            # Bins of the plot: 0.004 wide, or wider for few pairs.
            width = 32 if total > 100_000 else 128 if total > 1000 else 512
            density = counts.reshape(-1, width).sum(axis=1) * len(counts) / (2 * width * total)
            axes.stairs(
                density,
                edges[::width],
                fill=True,
                facecolor=colour + "40",
                edgecolor=colour,
                linewidth=1.2,
                hatch=hatch if total <= 100_000 else None,
                label=f"{name}, {total:,} comparisons",
            )
    seen = [edges[filled[0]], edges[filled[-1]], *(point.similarity for point in points)]
    axes.set(
        xlim=(max(-1.0, min(seen) - 0.05), min(1.0, max(seen) + 0.05)),
        ylim=(0, axes.get_ylim()[1] * 1.35),
        xlabel="cosine similarity (no unit)",
        ylabel="density (share per unit of similarity)",
    )
    for k, point in enumerate(points):
        axes.axvline(point.similarity, color=_GREY, linestyle="--", linewidth=1)
        axes.annotate(
            f"score {point.score:g}",
            (point.similarity, 0.98 - 0.06 * (k % 4)),
            xycoords=axes.get_xaxis_transform(),
            xytext=(3, 0),
            textcoords="offset points",
            va="top",
            fontsize=8,
        )
    figure.legend(frameon=False, loc="outside upper center", ncols=2)
    return figure


def plot_calibration(
    histograms: Histograms, calibration: Calibration, points: Sequence[OperatingPoint] = ()
) -> Figure:
    """Plot the nominal and the measured false match rate over the score.

    The rates at `points` have 95 % intervals.
    """
    figure, axes = _figure()
    impostor = histograms.impostor
    total = int(impostor.sum())
    if not total:
        raise InvalidParameter("a calibration plot needs impostor comparisons")
    above = np.cumsum(impostor[::-1])[::-1] / total
    scores = calibration.score(histograms.edges()[:-1])
    shown = (scores >= 20) & (above > 0)
    grid = np.linspace(20, 100, 321)
    axes.plot(grid, 100 * calibration.far(grid), "--", color=_GREY, label="nominal")
    axes.plot(scores[shown], 100 * above[shown], color=_BLUE, label=f"measured, {total:,} pairs")
    measured = [(point.score, point.fmr) for point in points if point.fmr and point.fmr.count]
    if measured:
        _bars(axes, [score for score, _ in measured], [fmr for _, fmr in measured])
    axes.axvspan(
        calibration.rarest_measured.score, 100, color="#00000010", label="nominal: extrapolated"
    )
    axes.set(
        yscale="log",
        xlim=(20, 100),
        xlabel="score (0 to 100)",
        ylabel="false match rate (% of impostor comparisons, log)",
    )
    axes.legend(frameon=False)
    return figure


def plot_folds(accuracy: ArrayLike) -> Figure:
    """Plot the accuracy of each fold, and the mean with its standard error."""
    values = 100 * np.asarray(accuracy, np.float64)
    figure, axes = _figure()
    number = np.arange(1, len(values) + 1)
    mean, error = values.mean(), values.std(ddof=1) / np.sqrt(len(values))
    axes.axhspan(mean - error, mean + error, color=_ORANGE + "40", label="standard error")
    axes.axhline(mean, color=_ORANGE, linestyle="--", label=f"mean {mean:.2f} %")
    axes.plot(number, values, "o", color=_BLUE, label="a fold")
    axes.set(
        xticks=number,
        ylim=(values.min() - 0.5, min(100.2, values.max() + 0.5)),
        xlabel="fold (number)",
        ylabel="accuracy (% of the fold's pairs)",
    )
    axes.legend(frameon=False, loc="lower right")
    return figure


def plot_groups(groups: Sequence[GroupRates], score: float) -> Figure:
    """Plot the false match rate within each group at one score, with 95 % intervals."""
    rows = [
        (f"{group.attribute} {group.group}\n{group.images:,} pictures", point)
        for group in groups
        for point in group.points
        if point.score == score and point.fmr
    ]
    if not rows:
        raise InvalidParameter(f"no group has impostor comparisons at score {score:g}")
    figure, axes = _figure(height=1.6 + 0.42 * len(rows))
    for place, (_, point) in enumerate(rows):
        if point.fmr is not None:
            _bars(axes, [place], [point.fmr], across=True)
    axes.axvline(100 * rows[0][1].nominal_fmr, color=_GREY, linestyle="--", label="nominal")
    if any(point.fmr is not None and point.fmr.count for _, point in rows):
        axes.set_xscale("log")
    names = [name for name, _ in rows]
    axes.set_yticks(range(len(rows)), names, parse_math=False)  # a name may hold $
    axes.set(
        ylim=(len(rows) - 0.5, -0.5),
        xlabel=f"false match rate within the group at score {score:g} (%)",
    )
    axes.tick_params(axis="y", labelsize=8)
    axes.legend(frameon=False)
    return figure


def plot_discard(curves: dict[str, DiscardCurve], limit: float = 0.3) -> Figure:
    """Plot error-versus-discard curves of quality measures, with their partial areas."""
    if not curves:
        raise InvalidParameter("there is no curve to draw")
    figure, axes = _figure()
    styles = ["-", "--", "-.", ":"]
    colours = [_BLUE, _ORANGE, _GREEN, _GREY]
    for k, (name, curve) in enumerate(curves.items()):
        axes.step(
            100 * np.append(curve.discarded, 1.0),
            100 * np.append(curve.fnmr, curve.fnmr[-1]),
            where="post",
            color=colours[k % 4],
            linestyle=styles[k // 4 % 4] if len(curves) > 4 else styles[k],
            label=f"{name}: mean FNMR {curve.partial_area(limit):.2%} up to {limit:.0%}",
        )
    start = max(float(curve.fnmr[0]) for curve in curves.values())
    gone = np.linspace(0, start, 100)[:-1]
    best = 100 * (start - gone) / (1 - gone)
    axes.plot(100 * gone, best, color=_GREY, linewidth=0.8, label="best possible")
    axes.set(
        xlim=(0, 100 * limit),
        ylim=(0, None),
        xlabel="comparisons discarded, worst quality first (%)",
        ylabel="false non-match rate of the rest (%)",
    )
    axes.legend(frameon=False)
    return figure


def _figure(height: float = 4.2) -> tuple[Figure, Any]:
    made = require_extra("matplotlib.figure").Figure(figsize=(6.4, height), layout="constrained")
    axes = made.add_subplot()
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return made, axes


def _name(axes: Any, text: str, where: tuple[float, ...], above: bool = False) -> None:
    offset = (5, 5) if above else (6, -12)
    axes.annotate(text, where, xytext=offset, textcoords="offset points", fontsize=8)


def _bars(axes: Any, places: Sequence[float], rates: Sequence[Rate], across: bool = False) -> None:
    """Draw points with intervals, in percent."""
    value, low, high = (
        100 * np.array([getattr(rate, name) for rate in rates]) for name in ("value", "low", "high")
    )
    error = np.stack([value - low, high - value])
    where, bars = ((value, places), "xerr") if across else ((places, value), "yerr")
    axes.errorbar(*where, **{bars: error}, fmt="o", color=_ORANGE, markersize=5, capsize=4)


def _rarest(rates: NDArray[np.float64]) -> float:
    """Choose the lowest rate of a plot: ten errors, or one error if comparisons are few."""
    least = min(float(rates[rates > 0].min(initial=1.0)), 0.1)
    return min(10 * least, max(least, 1e-3))


def _probit(rates: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(require_extra("scipy.special").ndtri(np.asarray(rates)), np.float64)
