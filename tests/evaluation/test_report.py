"""The figures, and the report as a browser shows it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from facecore import FaceEngine
from facecore.cli import main
from facecore.errors import InvalidParameter, MissingExtra
from facecore.evaluation import plots
from facecore.evaluation.all_pairs import Histograms
from facecore.evaluation.intervals import Rate
from facecore.evaluation.metrics import error_curve
from facecore.evaluation.protocols import LfwResult, folder, lfw
from facecore.evaluation.quality import error_versus_discard
from facecore.evaluation.report import report_paths, write_report
from facecore.evaluation.results import GroupRates, OperatingPoint
from facecore.matching.calibration import Calibration

Array = np.ndarray[Any, Any]

CHROMIUM = shutil.which("chromium")


def drawn(figure: Any) -> Array:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def coloured(image: Array, colour: str) -> int:
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(image.astype(int) - wanted).max(axis=-1) < 12).sum())


def test_every_figure_draws_its_data() -> None:
    rng = np.random.default_rng(1)
    own, others = rng.normal(0.6, 0.15, 400).clip(-1, 1), rng.normal(0, 0.1, 4000)
    curve = error_curve(own, others)
    fails = rng.random(400) < 0.1
    discard = error_versus_discard(
        np.where(fails, 0, 1), rng.random(400) - fails, np.ones(400), 0.5
    )
    figures = [
        plots.plot_roc(curve),
        plots.plot_det(curve),
        plots.plot_histograms(Histograms.of(own, others)),
        plots.plot_folds([0.98, 0.99, 1.0]),
        plots.plot_discard({"sharpness": discard}),
    ]
    for figure in figures:
        (axes,) = figure.axes
        assert axes.get_xlabel()
        assert axes.get_ylabel()
        assert coloured(drawn(figure), "#0072B2") > 100
    for bad in (
        lambda: plots.plot_discard({}),
        lambda: plots.plot_groups([], 80),
        lambda: plots.plot_histograms(Histograms.of([], [])),
    ):
        with pytest.raises(InvalidParameter):
            bad()


def test_perfect_and_tiny_sets_still_draw() -> None:
    for own, others in (([0.9, 0.8], [0.1]), ([0.1], [0.9]), ([0.5], [0.5])):
        curve = error_curve(own, others)
        for figure in (
            plots.plot_roc(curve),
            plots.plot_det(curve),
            plots.plot_histograms(Histograms.of(own, others)),
        ):
            assert drawn(figure).std() > 0


@pytest.mark.parametrize(
    "name", ["$20k (10 %) to $50k (20 %)", "under $20k_and over $50k", "a \\$ b"]
)
def test_a_group_may_have_dollars_in_its_name(name: str) -> None:
    point = OperatingPoint(80, 0.4, 0.001, False, Rate.wilson(3, 1000), None)
    figure = plots.plot_groups([GroupRates("income", name, 10, 5, (point,))], 80)
    assert drawn(figure).std() > 0
    (label,) = figure.axes[0].get_yticklabels()
    assert label.get_text().startswith(f"income {name}")
    assert label.get_parse_math() is False


def test_pyplot_is_never_imported() -> None:
    code = (
        "import sys; from facecore.evaluation import plots, report; assert 'matplotlib' not in"
        " sys.modules; plots.plot_folds([0.9, 1.0]); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_without_matplotlib_the_way_out_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(
        MissingExtra, match=r"matplotlib is not.*pip install 'facecore\[evaluation\]'"
    ):
        plots.plot_folds([0.9, 1.0])
    assert main(["evaluate", "lfw", str(tmp_path), "--report", str(tmp_path / "r")]) == 2
    assert "facecore: MissingExtra: matplotlib is not installed" in capsys.readouterr().err


def test_evaluation_without_its_extra_is_refused_at_once() -> None:
    code = "import sys; sys.modules['scipy'] = None; import facecore.evaluation.protocols"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (
        "MissingExtra: scipy is not installed (pip install 'facecore[evaluation]')" in done.stderr
    )


def test_where_a_report_goes(tmp_path: Path) -> None:
    assert report_paths(tmp_path / "a").html == tmp_path / "a" / "report.html"
    assert report_paths(tmp_path / "a.html").json == tmp_path / "a.json"


@pytest.fixture
def result(engine: FaceEngine, tiny_lfw: Path) -> LfwResult:
    labels = "".join(f'{p}/{p}_000{i}.jpg,<b>"x" & y</b>\n' for p in "AH" for i in range(1, 5))
    (tiny_lfw / "labels.csv").write_text("image,group\n" + labels.replace('"', '""'))
    text = (tiny_lfw / "labels.csv").read_text()
    (tiny_lfw / "labels.csv").write_text(re.sub(r",(<.*)", r',"\1"', text))
    return lfw(engine, tiny_lfw, labels=tiny_lfw / "labels.csv")


def test_the_files_of_a_report(result: LfwResult, engine: FaceEngine, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "page.html"
    written = write_report(result, engine, out, title="T <1> & 'co'", source="the {set}")
    assert sorted(path.name for path in out.parent.iterdir()) == ["page.html", "page.json"]
    page = written.html.read_text(encoding="utf-8")
    assert "<script" not in page
    assert not re.search(r"(src|href)=\"(?!data:image/svg\+xml;base64,)", page)
    assert "://" not in re.sub(r"base64,[^\"]*", "", page).replace("http-equiv", "")
    assert "<b>" not in page
    assert '<b>"x" & y</b>' in unescape(page)
    assert "T &lt;1&gt; &amp;" in page
    facts = json.loads(written.json.read_text(encoding="utf-8"))
    assert facts["source"] == "the {set}"
    assert facts["pack"]["contract_id"] == engine.contract_id
    hashes = {role: model["sha256"] for role, model in facts["pack"]["models"].items()}
    assert hashes == {role: m.sha256 for role, m in engine.pack.manifest.models.items()}
    needed = {"facecore", "numpy", "onnxruntime", "opencv", "python", "platform"}
    needed |= {"pillow", "scipy", "scikit-learn", "matplotlib"}
    assert needed <= set(facts["versions"])
    assert facts["result"] == json.loads(json.dumps(result.as_dict()))
    assert sum(count for _, count in facts["histograms"]["impostor"]) == result.impostor_pairs
    assert len(facts["curve"]["fmr"]) == len(facts["curve"]["fnmr"])


def test_a_report_that_cannot_be_written(
    result: LfwResult, engine: FaceEngine, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InvalidParameter, match="cannot be written"):
        write_report(result, engine, tmp_path / "file" / "r.html", title="T")


def test_a_name_that_is_not_utf8(result: LfwResult, engine: FaceEngine, tmp_path: Path) -> None:
    written = write_report(result, engine, tmp_path / "r", title="T \udcff", source="s\udcfe")
    assert "T \\udcff" in written.html.read_text(encoding="utf-8")
    assert json.loads(written.json.read_text(encoding="utf-8"))["source"] == "s\\udcfe"
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == [
        "report.html",
        "report.json",
    ]


def test_a_report_is_refused_before_the_work(
    tiny_lfw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r" / "report.json").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    assert main(["evaluate", "lfw", str(tiny_lfw), "--report", str(tmp_path / "r")]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert "report.json cannot be written" in err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidParameter("No space left on device"), "InvalidParameter"),
        (ValueError("a fault\nof matplotlib"), "FacecoreError"),
    ],
)
def test_the_numbers_are_printed_where_the_report_fails(
    error: Exception,
    code: str,
    tiny_lfw: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("facecore.evaluation.report.write_whole", fail)
    command = ["evaluate", "lfw", str(tiny_lfw), "--threads", "1", "--threshold", "91"]
    assert main([*command, "--report", str(tmp_path / "r")]) == 2
    out, err = capsys.readouterr()
    assert "at score 91 " in out
    assert f"facecore: {code}: " in err
    assert str(error).split("\n")[0] in err


def test_what_is_extrapolated_is_shaded_from_the_last_measured_knot() -> None:
    others = np.random.default_rng(1).normal(0, 0.1, 4000)
    table = Calibration.fit(None, others, identities=60)  # measured down to 1 %: score 70
    figure = plots.plot_calibration(Histograms.of([], others), table)
    (span,) = [patch for patch in figure.axes[0].patches if "extrapolated" in patch.get_label()]
    assert span.get_x() == table.rarest_measured.score == 70


def test_a_report_of_strangers_only(
    engine: FaceEngine, tmp_path: Path, astronaut: Array, hopper: Array
) -> None:
    for name, image in (("a", astronaut), ("b", hopper)):
        assert cv2.imwrite(str(tmp_path / f"{name}.png"), image)
    found = folder(engine, tmp_path)
    written = write_report(found, engine, tmp_path / "out", title="strangers")
    assert "curve" not in json.loads(written.json.read_text())
    assert written.html.read_text().count("<figure>") == 2


def browse(page: Path, profile: Path, *options: str) -> str:
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={profile}", "--hide-scrollbars", *options, page.as_uri()]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return done.stdout


MEASURE = """<script>document.body.setAttribute("data-found", JSON.stringify(
[...document.images].map(i => [i.alt, i.naturalWidth, i.naturalHeight,
...["x", "y", "width", "height"].map(k => i.getBoundingClientRect()[k])])))</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH to open the report in")
def test_a_browser_shows_every_figure(
    tiny_lfw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], result: LfwResult
) -> None:
    labels = tiny_lfw / "labels.csv"
    command = ["evaluate", "lfw", str(tiny_lfw), "--labels", str(labels), "--threads", "1"]
    assert main([*command, "--report", str(tmp_path / "out"), "--json"]) == 0
    files = json.loads(capsys.readouterr().out)["report"]
    page = Path(files["html"])
    # Measure in a copy, because the report's content security policy allows no script.
    copy = tmp_path / "copy.html"
    text = re.sub(r"<meta http-equiv[^>]*>", "", page.read_text(encoding="utf-8"))
    copy.write_text(text.replace("</body>", MEASURE), encoding="utf-8")
    window, shot = "--window-size=1280,3200", tmp_path / "shot.png"
    dom = browse(copy, tmp_path / "one", window, "--dump-dom")
    match = re.search(r'data-found="([^"]*)"', dom)
    assert match is not None
    figures = json.loads(unescape(match[1]))
    names = [name for name, *_ in figures]
    assert len(names) == 6
    assert {"ROC", "DET", "Accuracy by fold", "False matches within groups"} < set(names)
    browse(page, tmp_path / "two", window, f"--screenshot={shot}")
    image = cv2.cvtColor(cv2.imread(str(shot)), cv2.COLOR_BGR2RGB)
    for name, natural_width, natural_height, x, y, width, height in figures:
        assert min(natural_width, natural_height) > 150, name
        part = image[int(y) : int(y + height), int(x) : int(x + width)]
        assert min(part.shape[:2]) > 100, name
        dark = coloured(part, "#000000")
        marks = coloured(part, "#0072B2") + coloured(part, "#D55E00")
        assert dark > 150, f"{name}: axes and labels"
        assert marks > 30, f"{name}: data"
