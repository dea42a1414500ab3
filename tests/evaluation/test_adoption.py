"""Adopt a user's files as a pack: recognise, try, measure, list and remove them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("onnx")

from networks import detector, embedder, scrfd_outputs, yunet_outputs

import facecore
from facecore._utils import atomic_files
from facecore.cli import main
from facecore.errors import InvalidParameter, NotCalibrated, PackCorrupt, PackNotFound
from facecore.evaluation.adoption import Trial, adopt
from facecore.evaluation.calibrate import find_pictures, measure, save
from facecore.evaluation.preprocessing import choose
from facecore.models.adopt import manifest_text, remove
from facecore.models.known import KnownModel
from facecore.models.manifest import MANIFEST_NAME, read_manifest
from facecore.models.packs import load_pack

SIZE = (160, 192)
REFERENCE = Path(os.environ.get("FACECORE_DATA", Path(__file__).resolve().parents[3] / "shared"))
Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FACECORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "packs"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An InsightFace-like folder; its detector finds the same two faces in every picture."""
    root = tmp_path / "My Models"
    detector(root / "det.onnx", scrfd_outputs(SIZE), (1, 3, *SIZE))
    embedder(root / "rec.onnx", dimension=96)
    detector(root / "2d106det.onnx", {"fc1": np.zeros((1, 212))}, (1, 3, 192, 192))
    (root / "notes.pth").write_bytes(b"weights of another format")
    return root


def picture(seed: int, jitter: int = 0) -> Array:
    """Return coarse random colours, which the small embedder can tell apart."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (10, 12, 3)).astype(np.float32)
    coarse += 12 * np.random.default_rng(1000 * jitter + seed).normal(size=coarse.shape)
    large = cv2.resize(coarse.clip(0, 255).astype(np.uint8), (192, 160))
    return np.asarray(large, np.uint8)


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty people; twenty of them have two pictures."""
    root = tmp_path_factory.mktemp("people")
    for person in range(60):
        (root / f"p{person:02d}").mkdir()
        for shot in range(2 if person < 20 else 1):
            name = root / f"p{person:02d}" / f"{shot}.png"
            assert cv2.imwrite(str(name), picture(person, shot))
    return root


def test_a_folder_in_one_command(folder: Path, people: Path, cache: Path) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    made = adopt(folder, people=people)
    assert made.name == "my-models"
    assert set(made.passed_over) == {"2d106det.onnx", "notes.pth"}
    assert made.measurement is not None
    assert made.measurement.identities == 60
    assert len(made.trials) == 10  # the hash is unknown, so all were tried
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    # Nothing but the manifest is written.
    assert [path.name for path in (cache / "my-models").iterdir()] == [MANIFEST_NAME]
    assert [path.name for path in cache.iterdir()] == ["my-models"]
    text = "\n".join(made.lines())
    assert "licence not stated" in text
    assert "ask the publisher before you use it" in text
    assert "preprocessing" in text

    engine = facecore.FaceEngine("my-models", threads=1)
    table = engine.pack.embedder.calibration
    assert table is not None
    assert table.embedder == hashlib.sha256(before[folder / "rec.onnx"]).hexdigest()
    same, other = engine.compare(picture(3), picture(3, 1)), engine.compare(picture(3), picture(4))
    assert same.passed
    assert not other.passed
    assert same.similarity > other.similarity


def test_the_manifest_survives_writing(folder: Path, people: Path) -> None:
    manifest = adopt(folder, people=people).manifest
    path = folder / "again.toml"
    path.write_text(manifest_text(manifest), encoding="utf-8")
    assert read_manifest(path) == manifest
    shipped = read_manifest(Path(facecore.models.registry.shipped_root()) / "compact/pack.toml")
    path.write_text(manifest_text(shipped), encoding="utf-8")
    assert read_manifest(path) == shipped


def test_no_table_no_score(folder: Path, tmp_path: Path) -> None:
    made = adopt(folder, name="bare")
    assert "not calibrated" in "\n".join(made.notes)
    engine = facecore.FaceEngine("bare", threads=1)
    assert engine.calibration.is_missing
    assert "not calibrated" in repr(engine)
    result = engine.compare(picture(1), picture(1, 1))
    assert 0.5 < result.similarity <= 1
    assert len(result.faces) == 2
    assert "not calibrated" in repr(result)
    assert pickle.loads(pickle.dumps(result)).similarity == result.similarity
    chain = engine.cross_compare(picture(1), picture(2), picture(3))
    assert chain.ab.similarity == pytest.approx(engine.compare(picture(1), picture(2)).similarity)
    for refused in (
        lambda: result.score,
        lambda: result.passed,
        lambda: result.threshold,
        lambda: result.far_thresholds,
        lambda: chain.passed,
        lambda: engine.threshold,
        lambda: engine.calibration.score(0.5),
        lambda: engine.calibration.similarity(80.0),
        lambda: engine.calibration.far(80.0),
        lambda: engine.calibration.threshold(0.01),
        lambda: engine.calibration.is_extrapolated(80.0),
        lambda: engine.calibration.to_spec(),
        lambda: engine.compare(picture(1), picture(1), threshold=80.0).passed,
    ):
        with pytest.raises(NotCalibrated, match="facecore calibrate DIR --pack bare"):
            refused()
    with facecore.Gallery(tmp_path / "g", engine) as gallery:
        gallery.create_group("all")
        gallery.add("all", picture(1), user_id="u")
        with pytest.raises(NotCalibrated):
            gallery.search(picture(1), far=0.01)


def test_calibrate_works_on_a_pack_without_a_table(
    folder: Path, people: Path, tmp_path: Path
) -> None:
    adopt(folder, name="bare")
    engine = facecore.FaceEngine("bare", threads=1)
    found = measure(engine, find_pictures(people), dataset="people", id_portraits=False)
    save(tmp_path / "own.toml", engine, found)
    measured = facecore.FaceEngine("bare", threads=1, calibration=tmp_path / "own.toml")
    assert measured.compare(picture(1), picture(1, 1)).passed
    assert measured.threshold == 80


@pytest.mark.parametrize("known", [False, True])
def test_too_few_people_leave_the_table_that_is_there(
    known: bool,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for person in range(12):
        (tmp_path / "few" / f"p{person}").mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "few" / f"p{person}" / "0.png"), picture(person))
    digest = hashlib.sha256((folder / "rec.onnx").read_bytes()).hexdigest()
    shipped = read_manifest(Path(facecore.models.registry.shipped_root()) / "compact/pack.toml")
    assert shipped.embedder.calibration is not None
    table = dataclasses.replace(shipped.embedder.calibration, embedder=digest)
    half = (127.5, 127.5, 127.5)
    words = ("MIT", "here", "nothing")
    model = KnownModel(
        "a", digest, "embedder", "a", "RGB", half, half, *words, True, calibration=table
    )
    monkeypatch.setattr(
        "facecore.evaluation.adoption.read_known", lambda: {digest: model} if known else {}
    )
    made = adopt(folder, people=tmp_path / "few")
    assert made.measurement is None
    assert "too few" in "\n".join(made.notes)
    assert made.manifest.embedder.calibration == (table if known else None)
    command = ["weights", "adopt", str(folder), "--people", str(tmp_path / "few")]
    assert main(command) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert ("to use it" in last, "facecore calibrate DIR" in last) == (known, not known)


def test_the_table_of_another_model_is_refused(folder: Path, people: Path, cache: Path) -> None:
    adopt(folder, name="one", people=people)
    embedder(folder / "rec.onnx", dimension=128)
    adopt(folder, name="two")
    one, two = (cache / name / MANIFEST_NAME for name in ("one", "two"))
    table = one.read_text()[one.read_text().index("[embedder.calibration]") :]
    two.write_text(two.read_text() + "\n" + table)
    with pytest.raises(PackCorrupt, match="another embedder"):
        facecore.FaceEngine("two")


def test_vectors_that_depend_on_the_batch_are_made_one_by_one(folder: Path) -> None:
    embedder(folder / "rec.onnx", batch_dependent=True)
    made = adopt(folder, pictures={"a": picture(1), "b": picture(2)})
    assert made.manifest.embedder.max_batch == 1
    assert any("depends on the other faces in its batch" in note for note in made.notes)
    engine = facecore.FaceEngine(made.name, threads=1)
    vectors = list(engine.embed_many([picture(seed) for seed in range(4)]))
    for seed, vector in enumerate(vectors):
        np.testing.assert_allclose(vector, engine.embed(picture(seed)), atol=1e-5)


def test_nhwc_gives_the_vectors_of_nchw(folder: Path) -> None:
    options: dict[str, Any] = {"channels": "RGB", "normalisation": "127.5/128"}
    adopt(folder, name="nchw", **options)
    first = facecore.FaceEngine("nchw", threads=1).embed(picture(5))
    embedder(folder / "rec.onnx", layout="NHWC")
    made = adopt(folder, name="nhwc", **options)
    assert made.manifest.embedder.input.layout == "NHWC"
    assert made.manifest.embedder.input.std == (128.0,) * 3
    second = facecore.FaceEngine("nhwc", threads=1).embed(picture(5))
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_the_best_preprocessing_is_taken_and_a_worse_one_is_told(folder: Path) -> None:
    spec = adopt(folder, channels="RGB", normalisation="0/1").manifest.embedder
    names = ("RGB 127.5/127.5", "BGR 127.5/127.5", "RGB 127.5/128", "RGB 0/1", "BGR 0/1")

    def tried(*values: float) -> list[Trial]:
        made = [Trial(*name.split(), value) for name, value in zip(names, values, strict=True)]
        return sorted(made, key=lambda trial: -trial.d_prime)

    def chosen(found: list[Trial], few: bool = False, **given: Any) -> tuple[str, str, str]:
        notes: list[str] = []
        base = spec
        if given.get("channels") == "BGR":
            base = dataclasses.replace(spec, input=dataclasses.replace(spec.input, channels="BGR"))
        options = {"channels": None, "normalisation": None} | given
        made = choose(base, found, options["channels"], options["normalisation"], few, notes)
        return made.input.channels, f"{made.input.mean[0]:g}", " ".join(notes)

    channels, mean, note = chosen(tried(5.0, 7.0, 5.0, 1.0, 1.0))
    assert (channels, mean) == ("BGR", "127.5")
    assert "BGR 127.5/127.5" in note
    # If trials are equal within a hundredth, take the usual preprocessing.
    assert chosen(tried(6.99, 6.5, 7.0, 1.0, 1.0))[:2] == ("RGB", "127.5")
    # Two people are too few to tell the channel order, unless the lead is clear.
    channels, _, note = chosen(tried(6.0, 7.0, 6.0, 1.0, 1.0), few=True)
    assert channels == "RGB"
    assert "too few people to tell RGB from BGR" in note
    assert chosen(tried(4.0, 7.0, 4.0, 1.0, 1.0), few=True)[0] == "BGR"
    # Keep the preprocessing that the caller gives, and report the better one.
    channels, mean, note = chosen(
        tried(7.0, 6.0, 7.0, 1.0, 0.9), channels="BGR", normalisation="0/1"
    )
    assert (channels, mean) == ("BGR", "0")
    assert "--channels RGB --normalisation 127.5/127.5" in note
    right = chosen(tried(1.0, 1.0, 1.0, 5.0, 1.0), channels="RGB", normalisation="0/1")
    assert right == ("RGB", "0", "")


def test_a_wrong_order_given_by_hand_is_told(people: Path, folder: Path) -> None:
    """Run end to end: with the normalisation 0/1, brightness dominates the vector."""
    made = adopt(folder, people=people, channels="RGB", normalisation="0/1")
    assert made.manifest.embedder.input.mean == (0.0, 0.0, 0.0)
    assert any("separates people less well" in note for note in made.notes)


def test_the_detector_of_another_pack_is_copied(folder: Path, cache: Path) -> None:
    made = adopt(folder / "rec.onnx", detector="compact")
    assert made.name == "rec"
    assert sorted(path.name for path in (cache / "rec").iterdir()) == ["detector.onnx", "pack.toml"]
    assert load_pack("rec").pack.detector.folder is None
    again = adopt([folder / "det.onnx", folder / "rec.onnx"], detector="compact", name="rec")
    assert again.passed_over == {"det.onnx": "another detector was requested"}
    file = adopt(folder / "rec.onnx", detector=folder / "det.onnx")
    assert file.manifest.detector.architecture == "scrfd"


def test_what_cannot_be_adopted_leaves_nothing(folder: Path, tmp_path: Path, cache: Path) -> None:
    detector(folder / "det2.onnx", yunet_outputs(SIZE), (1, 3, *SIZE))
    empty = tmp_path / "empty"
    empty.mkdir()
    for sources, options, why in (
        (folder, {}, "2 detectors: det.onnx, det2.onnx"),
        (folder / "rec.onnx", {}, "no detector.*--detector compact"),
        (folder / "det.onnx", {}, "no embedder"),
        (empty, {}, "no .onnx file"),
        (tmp_path / "absent", {}, "neither a file nor a folder"),
        (tmp_path / ("x" * 300), {}, "neither a file nor a folder"),
        ("~no-such-user/models", {}, "neither a file nor a folder"),
        ([], {}, "no file was given"),
        (folder / "rec.onnx", {"detector": "compact", "name": "compact"}, "pack of facecore"),
        (folder / "rec.onnx", {"detector": "compact", "name": "Bad Name"}, "cannot name a pack"),
        (folder / "rec.onnx", {"detector": folder / "rec.onnx"}, "an embedder, not a detector"),
        (folder / "rec.onnx", {"detector": folder / "2d106det.onnx"}, "192x192"),
        (folder / "rec.onnx", {"detector": "compact", "channels": "GBR"}, "channels"),
        (folder / "rec.onnx", {"detector": "compact", "normalisation": "x"}, "normalisation"),
        (folder / "rec.onnx", {"detector": "compact", "people": empty}, "holds no folder"),
    ):
        with pytest.raises(InvalidParameter, match=why):
            adopt(sources, **options)  # type: ignore[arg-type]
    with pytest.raises(PackNotFound):
        adopt(folder / "rec.onnx", detector="no-such-pack")
    assert not cache.exists() or list(cache.iterdir()) == []


def test_every_file_is_on_the_disk_before_the_pack_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    publish = atomic_files.publish
    monkeypatch.setattr(atomic_files, "sync", lambda path: synced.append(path.name))
    monkeypatch.setattr(
        atomic_files, "publish", lambda *args: (synced.append("published"), publish(*args))
    )
    adopt(folder / "rec.onnx", detector="compact")
    assert sorted(synced[: synced.index("published")]) == ["detector.onnx", MANIFEST_NAME]


@pytest.mark.parametrize(
    "name", ["\u0645\u062f\u0644\u200c\u0647\u0627", "\U0001f469\u200d\U0001f52c"]
)
def test_a_folder_with_joined_characters_in_its_name(folder: Path, name: str) -> None:
    other = folder.rename(folder.with_name(name))
    assert adopt(other, name="joined").manifest.embedder.folder == str(other)
    assert load_pack("joined").pack.path(load_pack("joined").pack.embedder).parent == other


@pytest.mark.skipif(sys.platform != "linux", reason="needs file names of any bytes")
@pytest.mark.parametrize("name", [b"caf\xe9", b"two\nlines", b"del\x7f"])
def test_a_folder_that_no_manifest_can_hold_is_told_first(
    folder: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, name: bytes
) -> None:
    other = tmp_path / os.fsdecode(name)
    folder.rename(other)
    monkeypatch.setattr("facecore.evaluation.adoption._only", None)  # a call would raise TypeError
    with pytest.raises(InvalidParameter, match="name that is not UTF-8") as caught:
        adopt(other, name="cafe")
    assert caught.value.message.isascii()
    assert not cache.exists()


def test_the_recognizability_of_the_folder_that_one_is_in(
    folder: Path,
    people: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    adopt(folder, name="bare")
    named = []

    def measure(pack: str, crops: object, dataset: str) -> None:
        named.append(dataset)
        raise InvalidParameter("enough")

    monkeypatch.setattr("facecore.evaluation.spoiled_crops.collect", lambda *_: None)
    monkeypatch.setattr("facecore.evaluation.recognizability.measure", measure)
    monkeypatch.chdir(people)
    assert main(["weights", "recognizability", "bare", "--faces", "."]) == 2
    assert named == [people.name]
    capsys.readouterr()
    assert main(["weights", "recognizability", "compact", "--faces", "."]) == 2
    error = capsys.readouterr().err
    assert "no adopted pack 'compact'" in error
    assert "--name" not in error


def test_a_manifest_that_cannot_be_written_is_told_first(
    folder: Path,
    people: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    adopt(folder, name="bare")

    def refuse(path: Path) -> None:
        raise InvalidParameter(f"{path.name} cannot be written")

    monkeypatch.setattr("facecore._utils.atomic_files.check_writable", refuse)
    monkeypatch.setattr("facecore.evaluation.spoiled_crops.collect", None)  # would be a TypeError
    assert main(["weights", "recognizability", "bare", "--faces", str(people)]) == 2
    assert "pack.toml cannot be written" in capsys.readouterr().err


def test_a_file_that_moved_away_is_named(folder: Path) -> None:
    adopt(folder)
    (folder / "rec.onnx").rename(folder / "moved.onnx")
    with pytest.raises(PackCorrupt, match=r"missing.*facecore weights adopt"):
        facecore.FaceEngine("my-models")
    embedder(folder / "rec.onnx", dimension=64)
    with pytest.raises(PackCorrupt):
        facecore.FaceEngine("my-models")


def test_the_command_line(
    folder: Path, people: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["weights", "adopt", str(folder), "--name", "mine", "--people", str(people)]
    assert main([*command, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["calibrated"] is True
    assert answer["passed_over"]["2d106det.onnx"].startswith("takes 192x192 pixels")
    assert main(["weights", "list"]) == 0
    shown = capsys.readouterr().out
    shown = shown[shown.index("mine ") :]
    assert "adopted, installed in" in shown
    assert "calibrated on 60 people" in shown
    assert main(["weights", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["mine"]["adopted"] is True
    assert listed["mine"]["calibration"]["identities"] == 60
    assert listed["sface"]["calibration"] is None
    assert main(["weights", "verify", "mine"]) == 0
    assert main(["weights", "remove", "mine"]) == 0
    assert list(cache.iterdir()) == []
    capsys.readouterr()
    assert main(["weights", "remove", "mine"]) == 2
    assert "PackNotFound" in capsys.readouterr().err
    assert main(["weights", "remove", "compact"]) == 2
    assert "ships with facecore" in capsys.readouterr().err
    assert (folder / "rec.onnx").exists()
    for name in ("..", "../packs", ""):
        with pytest.raises(PackNotFound):
            remove(name)


def reference(part: str) -> Path:
    if not (REFERENCE / part).is_dir():
        pytest.skip(f"no {part}/ in the reference data in {REFERENCE}; set FACECORE_DATA")
    return REFERENCE / part


def lfw_pairs(root: Path, count: int) -> list[tuple[Path, Path, bool]]:
    """Return the first `count` genuine and `count` impostor pairs of the first fold."""
    lines = (root / "pairs.txt").read_text().splitlines()[1:]

    def file(name: str, number: str) -> Path:
        return root / "images" / name / f"{name}_{int(number):04d}.jpg"

    made = []
    for line in [*lines[:count], *lines[300 : 300 + count]]:
        parts = line.split()
        if len(parts) == 3:
            made.append((file(parts[0], parts[1]), file(parts[0], parts[2]), True))
        else:
            made.append((file(parts[0], parts[1]), file(parts[2], parts[3]), False))
    return made


@pytest.mark.parametrize(
    ("finder", "vectors", "size", "batch"),
    [
        ("yunet/yunet_n_320_320.onnx", "mobilefacenet/MobileFaceNet.onnx", 320, 1),
        ("yunet/yunet_n_640_640.onnx", "mobilefacenet/MobileFaceNet.onnx", 640, 1),
        ("yunet/yunet_s_dynamic.onnx", "espdl/mfn_112.onnx", 0, 0),
    ],
)
def test_real_files_give_the_right_answers_on_lfw(
    lfw_folder: Path, finder: str, vectors: str, size: int, batch: int
) -> None:
    weights = reference("weights")
    made = adopt([weights / finder, weights / vectors], name="real")
    assert made.manifest.detector.input.height == size
    assert made.manifest.embedder.max_batch == batch
    assert made.trials == ()  # the hash is known
    engine = facecore.FaceEngine("real", threads=1)
    pairs = lfw_pairs(lfw_folder, 12)
    right = [engine.compare(a, b).passed == same for a, b, same in pairs]
    assert sum(right) >= 23


def test_files_of_other_families_where_they_are_at_hand(lfw_folder: Path) -> None:
    """Adopt each folder in FACECORE_DATA/adopt (put an InsightFace folder there) and compare."""
    root = reference("adopt")
    folders = [root, *(path for path in root.iterdir() if path.is_dir())]
    folders = [path for path in folders if any(path.glob("*.onnx"))]
    assert folders
    for folder in folders:
        made = adopt(folder, name="family", detector=os.environ.get("FACECORE_ADOPT_DETECTOR"))
        engine = facecore.FaceEngine("family", threads=1)
        pairs = lfw_pairs(lfw_folder, 10)
        alike = [engine.compare(a, b).similarity for a, b, same in pairs if same]
        other = [engine.compare(a, b).similarity for a, b, same in pairs if not same]
        assert np.median(alike) > np.max(other), made.lines()
