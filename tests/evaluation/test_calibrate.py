"""Measure calibration tables, for packs and by users, and name mistakes in the pictures."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facecore import FaceEngine, cli
from facecore.errors import InvalidParameter, NotCalibrated, UnreadableImage, UnrecognizableFace
from facecore.evaluation import calibrate
from facecore.evaluation.all_pairs import compare_all
from facecore.matching.calibration import Calibration
from facecore.matching.intervals import bootstrap_rates, wilson_interval
from facecore.models.calibration_file import read_calibration

Array = np.ndarray[Any, Any]


class FakeEngine:
    """Yields the given vectors, and UnreadableImage for an unknown path."""

    def __init__(self, engine: FaceEngine, vectors: dict[Path, Array]) -> None:
        self.pack, self.limits, self.contract_id = engine.pack, engine.limits, engine.contract_id
        self.vectors = vectors

    def embed_many(self, sources: Any, **_: Any) -> Iterator[Any]:
        for path in sources:
            yield self.vectors.get(path, UnreadableImage("no picture"))


def people(count: int, each: int, noise: float = 0.6) -> list[tuple[str, Path, Array]]:
    rng = np.random.default_rng(3)
    made = []
    for i in range(count):
        middle = rng.normal(size=64)
        for j in range(each):
            vector = (middle + noise * rng.normal(size=64)).astype(np.float32)
            made.append((f"p{i:04d}", Path(f"p{i:04d}/{j}.jpg"), vector / np.linalg.norm(vector)))
    return made


def fake(engine: FaceEngine, made: list[tuple[str, Path, Array]]) -> Any:
    return FakeEngine(engine, {path: vector for _, path, vector in made})


def measure(engine: Any, made: list[tuple[str, Path, Array]]) -> calibrate.Measurement:
    pictures = [(person, path) for person, path, _ in made]
    return calibrate.measure(engine, pictures, dataset="made up", id_portraits=False)


def test_all_pairs_are_compared(engine: FaceEngine) -> None:
    made = people(60, 3)
    order = np.random.default_rng(0).permutation(len(made))  # not person by person
    result = measure(fake(engine, made), [made[i] for i in order])
    assert (result.pictures, result.identities, result.skipped) == (180, 60, ())
    assert len(result.genuine) == 60 * 3
    assert len(result.impostor) == 180 * 179 // 2 - 180
    table = result.calibration
    assert (table.identities, table.genuine, table.impostor) == (60, 180, len(result.impostor))
    assert (table.dataset, table.contract) == ("made up", engine.contract_id)
    assert [knot.measured for knot in table.knots] == [True, True, True, False, False]
    for knot in table.knots[:3]:
        assert (result.impostor >= knot.similarity).mean() == pytest.approx(knot.far, rel=0.02)
        assert knot.low < knot.far < knot.high
        assert knot.fnmr is not None
        share = (result.genuine < knot.similarity).mean()
        assert knot.fnmr.value == pytest.approx(share, abs=1e-6)


def test_the_bootstrap_is_that_of_the_evaluation() -> None:
    made = people(30, 2)
    vectors = np.stack([vector for _, _, vector in made])
    who = np.arange(60) // 2
    threshold = 0.1
    resampled = compare_all(vectors, who, [threshold]).fmr_resamples[0]
    wanted = np.quantile(resampled, [0.025, 0.975])
    different = who[:, None] != who[None]
    fold = np.add.reduceat
    passing, total = (
        fold(fold(counts.astype(float), range(0, 60, 2), 0), range(0, 60, 2), 1)
        for counts in (different & (vectors @ vectors.T >= threshold), different)
    )
    assert bootstrap_rates(passing, total) == pytest.approx(wanted, rel=1e-5)


def test_bootstrap_where_nothing_was_compared() -> None:
    assert bootstrap_rates(np.zeros(3), np.zeros(3)) == (0.0, 1.0)
    assert bootstrap_rates(np.ones(3), np.ones(3)) == (1.0, 1.0)


def test_pictures_of_few_people_do_not_narrow_the_intervals(engine: FaceEngine) -> None:
    table = measure(fake(engine, people(60, 10, 0.05)), people(60, 10, 0.05)).calibration
    rarest = table.knots[-1]
    assert rarest.high >= wilson_interval(0, 60 * 59 // 2)[1] > 0.002
    assert rarest.fnmr is not None
    assert rarest.fnmr.value == 0
    assert rarest.fnmr.high == pytest.approx(0.0602, abs=1e-4)


def test_what_is_no_picture_is_reported(engine: FaceEngine) -> None:
    made = people(60, 1)
    extra = [*made, ("p0001", Path("p0001/notes.txt"), np.zeros(0))]
    result = measure(fake(engine, made), extra)
    assert [(s.path, s.code) for s in result.skipped] == [("p0001/notes.txt", "UnreadableImage")]
    with pytest.raises(InvalidParameter, match=r"too few.*1 files were skipped.*notes\.txt"):
        measure(fake(engine, made[:30]), [*made[:30], extra[-1]])


def test_one_picture_in_two_folders_is_refused(engine: FaceEngine) -> None:
    made = people(60, 1)
    made.append(("other", Path("other/copy.jpg"), made[5][2]))
    with pytest.raises(InvalidParameter, match=r"copy\.jpg.*p0005|p0005.*copy\.jpg"):
        measure(fake(engine, made), made)


def test_one_person_in_two_folders_is_doubtful(engine: FaceEngine) -> None:
    made = people(60, 1)
    near = made[7][2] + 0.05 * made[8][2]
    made.append(("again", Path("again/1.jpg"), near / np.linalg.norm(near)))
    doubt = measure(fake(engine, made), made).doubtful[0]
    assert {doubt.a, doubt.b} == {"again/1.jpg", "p0007/0.jpg"}
    assert doubt.similarity > 0.99


def test_folders_that_mix_people_are_refused(engine: FaceEngine) -> None:
    made = people(120, 1)
    mixed = [(f"p{i // 2}", path, vector) for i, (_, path, vector) in enumerate(made)]
    with pytest.raises(InvalidParameter, match="folder holds one person"):
        measure(fake(engine, mixed), mixed)


def test_too_many_pictures_keep_every_person(
    engine: FaceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "MAX_PICTURES", 100)
    made = people(60, 3)
    result = measure(fake(engine, made), made)
    assert (result.pictures, result.identities, result.left_out) == (100, 60, 80)
    assert any("80 more were left out" in line for line in result.lines())


def test_find_pictures(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "b/1.jpg", "a/deep/3.png", ".hidden/4.jpg", "b/.5.jpg", "loose.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = calibrate.find_pictures(tmp_path)
    names = [(person, path.relative_to(tmp_path).as_posix()) for person, path in found]
    inside: list[tuple[str | None, str]] = [("a", "a/deep/3.png"), ("b", "b/1.jpg")]
    assert names == [*inside, ("b", "b/2.jpg"), (None, "loose.jpg")]
    for wrong in (tmp_path / "loose.jpg", tmp_path / "nowhere", tmp_path / "a" / "deep"):
        with pytest.raises(InvalidParameter):
            calibrate.find_pictures(wrong)


def test_loose_pictures_are_ignored_and_counted(engine: FaceEngine) -> None:
    made = people(60, 1)
    pictures = [(person, path) for person, path, _ in made]
    loose = [(None, Path("loose.jpg"))] * 3
    result = calibrate.measure(
        fake(engine, made), [*pictures, *loose], dataset="made up", id_portraits=False
    )
    assert (result.pictures, result.loose, result.as_dict()["loose"]) == (60, 3, 3)
    assert "3 in no person's folder were ignored" in result.lines()


def test_where_a_table_goes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FACECORE_CACHE", str(tmp_path))
    from facecore.models.registry import shipped_root

    def at(folder: Path) -> Path:
        pack = SimpleNamespace(name="compact", folder=folder)
        engine: Any = SimpleNamespace(pack=pack)
        return calibrate.default_file(engine)

    own = tmp_path / "packs" / "compact.calibration.toml"
    assert at(shipped_root() / "compact") == at(tmp_path / "packs" / "compact") == own
    assert at(tmp_path / "mine") == tmp_path / "compact.calibration.toml"


# --- on real people ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def population(london_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder per person: 60 people of the London set, at half size, and two faceless files."""
    root = tmp_path_factory.mktemp("population") / "London, 60 people"
    for neutral in sorted(london_folder.glob("*_neutral.jpg"))[:60]:
        folder = root / neutral.name[:3]
        folder.mkdir(parents=True)
        for path in (neutral, neutral.with_name(neutral.name.replace("neutral", "smiling"))):
            small = cv2.resize(
                cv2.imread(str(path)), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA
            )
            cv2.imwrite(str(folder / path.name), small)
    first = next(root.iterdir())
    (first / "notes.txt").write_text("not a picture")
    cv2.imwrite(str(first / "wall.png"), np.full((200, 200, 3), 200, np.uint8))
    return root


@pytest.fixture(scope="module")
def own(
    engine: FaceEngine, population: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """Run ``facecore calibrate``; return its file and its answer."""
    path = tmp_path_factory.mktemp("own") / "own.toml"
    with pytest.MonkeyPatch.context() as patch:
        printed: list[str] = []
        patch.setattr("builtins.print", lambda *texts, **_: printed.extend(texts))
        pack = str(engine.pack.folder)
        status = cli.main(
            ["calibrate", str(population), "--out", str(path), "--pack", pack, "--json"]
        )
    assert (status, len(printed)) == (0, 1)
    return path, json.loads(printed[0])


def test_calibrate_reports(
    engine: FaceEngine, population: Path, own: tuple[Path, dict[str, Any]]
) -> None:
    path, answer = own
    assert answer["file"] == str(path)
    assert (answer["pictures"], answer["identities"]) == (120, 60)
    assert answer["contract"] == engine.contract_id
    skipped = {Path(one["path"]).name: one["code"] for one in answer["skipped"]}
    codes = {name: code for name, code in skipped.items() if code != "UnrecognizableFace"}
    assert codes == {"notes.txt": "UnreadableImage", "wall.png": "NoFaceDetected"}
    lost = len(skipped) - len(codes)  # ID portraits that the gate refuses
    assert lost <= 3
    assert answer["calibration"]["dataset"] == population.name
    assert (answer["calibration"]["genuine"], answer["calibration"]["impostor"]) == (60, 7080)
    portraits = answer["id_portrait_calibration"]
    assert (portraits["genuine"], portraits["impostor"]) == (120 - lost, 118 * (120 - lost))
    assert [knot["measured"] for knot in portraits["knots"]] == [True, True, True, False, False]


def test_evaluate_with_a_table_and_a_threshold_of_ones_own(
    engine: FaceEngine,
    population: Path,
    own: tuple[Path, dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["evaluate", "folder", str(population), "--pack", str(engine.pack.folder)]
    command += ["--calibration", str(own[0]), "--threshold", "75", "--json", "--threads", "1"]
    assert cli.main(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["threshold"] == 75
    assert [point["score"] for point in found["points"]] == [70, 75, 80, 90]
    assert [point["extrapolated"] for point in found["points"]] == [False, True, True, True]
    # On the pictures that the table was fitted to, the measured FMR equals the nominal one.
    assert found["points"][0]["fmr"]["value"] == pytest.approx(0.01, rel=0.02)
    assert found["without_vector"] == {"NoFaceDetected": 1, "UnreadableImage": 1}


def test_own_table_round_trip(
    engine: FaceEngine, population: Path, own: tuple[Path, dict[str, Any]]
) -> None:
    path, _ = own
    file = read_calibration(path)
    mine = FaceEngine(engine.pack.folder, threads=1, calibration=path)
    assert mine.calibration == Calibration.from_spec(file.calibration, file.contract)
    assert mine.calibration.to_spec() == file.calibration
    assert file.id_portrait_calibration is not None
    assert mine.id_portrait_calibration is not None
    assert mine.id_portrait_calibration.to_spec() == file.id_portrait_calibration
    assert mine.threshold == 80
    a, b = sorted(population.rglob("*.jpg"))[:2]
    theirs, ours = engine.compare(a, b), mine.compare(a, b)
    assert ours.similarity == theirs.similarity
    assert ours.score == mine.calibration.score(ours.similarity) != theirs.score
    given = FaceEngine(engine.pack.folder, threads=1, calibration=mine.calibration)
    assert given.compare(a, b).score == ours.score
    assert given.id_portrait_calibration == engine.id_portrait_calibration


def test_the_commands_use_it(
    capsys: pytest.CaptureFixture[str],
    engine: FaceEngine,
    population: Path,
    own: tuple[Path, dict[str, Any]],
) -> None:
    a, b = sorted(population.rglob("*.jpg"))[:2]
    scores = {}
    for options in ((), ("--calibration", str(own[0])), ("--id-portrait",)):
        pack = str(engine.pack.folder)
        assert cli.main(["compare", str(a), str(b), "--pack", pack, "--json", *options]) == 0
        scores[options[:1]] = json.loads(capsys.readouterr().out)["score"]
    assert len(set(scores.values())) == 3


def test_a_foreign_contract_is_refused(
    engine: FaceEngine, own: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    other = "c1-0000000000000000"
    path = tmp_path / "other.toml"
    path.write_text(own[0].read_text().replace(engine.contract_id, other))
    table = dataclasses.replace(engine.calibration, contract=other)
    for wrong in (path, str(path), table):
        with pytest.raises(InvalidParameter) as caught:
            FaceEngine(engine.pack.folder, threads=1, calibration=wrong)
        assert other in caught.value.message
        assert engine.contract_id in caught.value.message


@pytest.mark.parametrize("wrong", [3, b"a.toml", ["a"]])
def test_what_is_no_calibration(engine: FaceEngine, wrong: Any) -> None:
    with pytest.raises(InvalidParameter, match="calibration is"):
        FaceEngine(engine.pack.folder, calibration=wrong)


def test_too_few_people_leave_no_file(
    capsys: pytest.CaptureFixture[str], engine: FaceEngine, population: Path, tmp_path: Path
) -> None:
    for person in sorted(population.iterdir())[:3]:
        shutil.copytree(person, tmp_path / "few" / person.name)
    out = tmp_path / "few.toml"
    pack = str(engine.pack.folder)
    status = cli.main(["calibrate", str(tmp_path / "few"), "--out", str(out), "--pack", pack])
    err = capsys.readouterr().err
    assert status == 2
    assert "3 people are too few" in err
    assert "46 people" in err
    assert not out.exists()


# --- scores and thresholds of a comparison ----------------------------------------------------


@pytest.mark.parametrize("id_portrait", [False, True])
def test_thresholds_equal_the_packs_table(
    engine: FaceEngine, astronaut: Array, hopper: Array, id_portrait: bool
) -> None:
    embedder = engine.pack.embedder
    table = embedder.id_portrait_calibration if id_portrait else embedder.calibration
    assert table is not None
    stated = {knot.far: knot.score for knot in table.knots}
    result = engine.compare(astronaut, hopper, id_portrait=id_portrait)
    assert result.far_thresholds == {far: stated[far] for far in (0.01, 0.001, 0.0001)}
    knots = {knot.similarity: knot.score for knot in table.knots}
    calibration = engine.id_portrait_calibration if id_portrait else engine.calibration
    assert calibration is not None
    assert calibration.score(list(knots)).tolist() == list(knots.values())
    assert result.score == calibration.score(result.similarity)


def test_a_pack_without_a_table_for_id_portraits(
    engine: FaceEngine, hopper: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "id_portrait_calibration", None)
    with pytest.raises(NotCalibrated, match="no calibration for ID portraits") as caught:
        engine.compare(hopper, hopper, id_portrait=True)
    assert "facecore calibrate" in caught.value.hint


@settings(max_examples=12)
@given(
    st.sampled_from(["astronaut", "hopper"]),
    st.sampled_from(["astronaut", "hopper"]),
    st.floats(0.4, 1.5),
    st.floats(-25, 25),
    st.floats(0.5, 1.4),
    st.booleans(),
)
def test_a_swap_changes_no_score_and_identity_is_99(
    engine: FaceEngine,
    astronaut: Array,
    hopper: Array,
    first: str,
    second: str,
    scale: float,
    angle: float,
    light: float,
    id_portrait: bool,
) -> None:
    images = {"astronaut": astronaut, "hopper": hopper}
    a, b = images[first], images[second]
    turn = cv2.getRotationMatrix2D((b.shape[1] / 2, b.shape[0] / 2), angle, 1)
    b = cv2.convertScaleAbs(cv2.warpAffine(b, turn, b.shape[1::-1]), alpha=light)
    b = np.asarray(cv2.resize(b, None, fx=scale, fy=scale), np.uint8)
    try:
        one, other = (engine.compare(*pair, id_portrait=id_portrait) for pair in ((a, b), (b, a)))
    except UnrecognizableFace:
        return
    assert one.score == other.score
    assert one.similarity == other.similarity
    same = engine.compare(b, b, id_portrait=id_portrait)
    assert same.score >= 99 or same.allowance > 0
