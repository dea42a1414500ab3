"""Write a result as a self-contained HTML page, and as JSON with all its numbers."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from facecore._utils.atomic_files import make_folder, write_whole
from facecore._utils.extras import require_extra
from facecore._version import __version__
from facecore.engine import FaceEngine
from facecore.evaluation.metrics import ErrorCurve, histogram_curve
from facecore.evaluation.report_page import render
from facecore.evaluation.results import Result

__all__ = ["Report", "report_paths", "write_report"]

_PACKAGES = {
    "numpy": ["numpy"],
    "onnxruntime": ["onnxruntime", "onnxruntime-gpu"],
    "opencv": ["opencv-python-headless", "opencv-python"],
    "pillow": ["pillow"],
    "scipy": ["scipy"],
    "scikit-learn": ["scikit-learn"],
    "matplotlib": ["matplotlib"],
}


@dataclass(frozen=True, slots=True)
class Report:
    """Paths of a report."""

    html: Path
    json: Path


def report_paths(out: Path) -> Report:
    """Name the files of a report; `out` is an .html file or a folder."""
    if out.suffix.lower() in (".html", ".htm"):
        return Report(out, out.with_suffix(".json"))
    return Report(out / "report.html", out / "report.json")


def write_report(
    result: Result, engine: FaceEngine, out: Path, *, title: str, source: str = ""
) -> Report:
    """Write a result as an HTML page and as JSON, each file atomically.

    Parameters
    ----------
    result : Result
        From `facecore.evaluation.protocols`.
    engine : FaceEngine
        Engine of the measurement.
    out : Path
        See `report_paths`; missing folders are created.
    title : str
        Title of the page.
    source : str
        Path or name of the measured pictures.

    Raises
    ------
    MissingExtra
        matplotlib or scikit-learn is not installed.
    InvalidParameter
        The files cannot be written.
    """
    require_extra("matplotlib.figure")
    paths = report_paths(out)
    make_folder(paths.html.parent)
    measured = bool(result.histograms.genuine.any() and result.histograms.impostor.any())
    curve = histogram_curve(result.histograms) if measured else None
    facts = _facts(result, engine, title, source, curve)
    page = render(result, engine, facts, curve)
    write_whole(paths.json, json.dumps(facts, indent=1, allow_nan=False).encode())
    write_whole(paths.html, page.encode("utf-8", "backslashreplace"))
    return paths


def _facts(
    result: Result, engine: FaceEngine, title: str, source: str, curve: ErrorCurve | None
) -> dict[str, Any]:
    manifest, histograms = engine.pack.manifest, result.histograms
    facts: dict[str, Any] = {
        "format": 1,
        "title": _shown(title),
        "source": _shown(source),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "pack": {
            "name": manifest.name,
            "version": manifest.version,
            "contract_id": engine.contract_id,
            "models": {
                role: {"file": model.file, "size": model.size, "sha256": model.sha256}
                for role, model in manifest.models.items()
            },
            "calibration": {
                "dataset": engine.calibration.dataset,
                "method": engine.calibration.method,
                "knots": [asdict(knot) for knot in engine.calibration.knots],
            },
        },
        "versions": _versions(),
        "result": result.as_dict(),
        "histograms": {
            "bins": f"{len(histograms.genuine)} equal bins of similarity, -1 to 1; "
            "[index from 0, count] of each bin that is not empty",
            "genuine": _sparse(histograms.genuine),
            "impostor": _sparse(histograms.impostor),
        },
    }
    if curve is not None:
        # Omit the first point: JSON cannot represent its infinite threshold.
        facts["curve"] = {
            "equal_error_rate": curve.eer(),
            "similarity": curve.thresholds[1:].tolist(),
            "fmr": curve.fmr[1:].tolist(),
            "fnmr": curve.fnmr[1:].tolist(),
        }
    return facts


def _shown(text: str) -> str:
    """Escape characters that UTF-8 cannot encode, such as undecodable bytes of a file name."""
    return text.encode("utf-8", "backslashreplace").decode()


def _sparse(counts: np.ndarray[Any, Any]) -> list[list[int]]:
    filled = np.flatnonzero(counts)
    return [[int(place), int(counts[place])] for place in filled]


def _versions() -> dict[str, str]:
    versions = {
        "facecore": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": f"{platform.machine()}, {os.cpu_count()} processors",
    }
    for name, published in _PACKAGES.items():
        for package in published:
            try:
                versions[name] = version(package)
                break
            except PackageNotFoundError:  # missing extra, or installed without metadata
                continue
    return versions
