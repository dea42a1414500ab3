"""FaceEngine: from images to results, in every input form, in batches and in threads."""

from __future__ import annotations

import inspect
import io
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from templates import DIMENSION

from facecore import FaceEngine, Gallery
from facecore.errors import (
    FacecoreError,
    InvalidParameter,
    NoFaceDetected,
    PackCorrupt,
    PackNotFound,
    SeveralFacesDetected,
    UnreadableImage,
    UnrecognizableFace,
)
from facecore.face.alignment import TEMPLATE
from facecore.images.picture import Picture
from facecore.models.registry import shipped_root
from facecore.pipeline import Pipeline

Array = np.ndarray[Any, Any]
REPO = Path(__file__).resolve().parents[1]
NOISE = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)


@pytest.fixture(scope="module")
def changed(astronaut: Array) -> Array:
    """The astronaut turned, smaller, darker and coarsely compressed."""
    turned = cv2.warpAffine(
        astronaut, cv2.getRotationMatrix2D((225, 120), 15, 0.8), astronaut.shape[1::-1]
    )
    jpeg = cv2.imencode(
        ".jpg", cv2.convertScaleAbs(turned, alpha=0.8), [cv2.IMWRITE_JPEG_QUALITY, 60]
    )
    return np.asarray(cv2.imdecode(jpeg[1], cv2.IMREAD_COLOR), np.uint8)


def test_the_same_person_passes_and_another_does_not(
    engine: FaceEngine, astronaut: Array, changed: Array, hopper: Array
) -> None:
    same, other = engine.compare(astronaut, changed), engine.compare(astronaut, hopper)
    assert same.passed
    assert not other.passed
    assert 80 <= same.score < 100
    assert 0 < other.score < 70
    assert same.threshold == engine.threshold == 80
    assert same.far_thresholds == {0.01: 70.0, 0.001: 80.0, 0.0001: 90.0}
    for face, image in zip(same.faces, (astronaut, changed), strict=True):
        np.testing.assert_array_equal(face.landmarks, engine.largest_face(image).landmarks)


def test_identity_scores_at_least_99(engine: FaceEngine, hopper: Array) -> None:
    assert engine.compare(hopper, hopper.copy()).score >= 99


def test_a_swap_gives_the_same_score(engine: FaceEngine, changed: Array, hopper: Array) -> None:
    one, other = engine.compare(changed, hopper), engine.compare(hopper, changed)
    assert one.score == other.score
    assert one.similarity == other.similarity


def test_every_form_of_an_input_gives_one_vector(
    engine: FaceEngine, hopper: Array, hopper_path: Path
) -> None:
    data = hopper_path.read_bytes()
    wanted = engine.embed(hopper)
    assert wanted.dtype == np.float32
    assert wanted.shape == (engine.pack.embedder.output.dimension,)
    assert np.linalg.norm(wanted) == pytest.approx(1, abs=1e-6)
    with Image.open(hopper_path) as pillow, io.BytesIO(data) as stream:
        for form in (hopper_path, str(hopper_path), data, bytearray(data), stream, pillow):
            assert float(engine.embed(form) @ wanted) >= 0.999, type(form)


def test_the_central_face_need_not_be_the_largest(
    engine: FaceEngine, astronaut: Array, hopper: Array
) -> None:
    small = np.asarray(cv2.resize(hopper, None, fx=0.35, fy=0.35, interpolation=cv2.INTER_AREA))
    picture = np.zeros((512, 1024, 3), np.uint8)
    picture[:, :400] = astronaut[:, :400]
    picture[180 : 180 + len(small), 425 : 425 + small.shape[1]] = small
    largest, central = (engine.embed(picture, face=f) for f in ("largest", "central"))  # type: ignore[arg-type]
    assert largest @ engine.embed(astronaut) > 0.9
    assert central @ engine.embed(small) > 0.8
    with pytest.raises(InvalidParameter, match="smallest"):
        engine.embed(picture, face="smallest")  # type: ignore[arg-type]


def test_no_face_no_vector(engine: FaceEngine, astronaut: Array) -> None:
    assert engine.detect(NOISE) == []
    for verb in (engine.embed, engine.largest_face):
        with pytest.raises(NoFaceDetected, match="300x300"):
            verb(NOISE)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (NOISE, NoFaceDetected),
        (b"not an image", UnreadableImage),
        (np.zeros((2, 2)), InvalidParameter),
    ],
)
def test_an_error_names_the_image(
    engine: FaceEngine, astronaut: Array, bad: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match=r"^image a: "):
        engine.compare(bad, astronaut)
    with pytest.raises(error, match=r"^image b: "):
        engine.compare(astronaut, bad)
    with pytest.raises(error, match=r"^image c: ") as caught:
        engine.cross_compare(astronaut, astronaut, bad)
    assert caught.value.hint  # type: ignore[attr-defined]


def test_cross_compare(engine: FaceEngine, astronaut: Array, changed: Array, hopper: Array) -> None:
    chain = engine.cross_compare(astronaut, changed, astronaut)
    assert chain.passed
    assert chain.ca is None
    assert chain.ab.score == pytest.approx(engine.compare(astronaut, changed).score, abs=0.01)
    assert chain.ab.score == pytest.approx(chain.bc.score, abs=0.01)
    loop = engine.cross_compare(astronaut, changed, hopper, mode="loop")
    assert loop.ca is not None
    assert (loop.ab.passed, loop.bc.passed, loop.ca.passed) == (True, False, False)
    assert not loop.passed
    assert engine.cross_compare(astronaut, changed, hopper, "loop", threshold=0).passed
    with pytest.raises(InvalidParameter, match="ring"):
        engine.cross_compare(astronaut, changed, hopper, mode="ring")  # type: ignore[arg-type]


def test_a_call_can_set_its_own_threshold(
    engine: FaceEngine, astronaut: Array, changed: Array, hopper: Array
) -> None:
    assert engine.compare(astronaut, hopper, threshold=0).passed
    strict = engine.compare(astronaut, changed, threshold=100)
    assert not strict.passed
    assert strict.threshold == 100


@pytest.mark.parametrize("threshold", [-0.1, 100.1, float("nan"), float("inf"), "80", True])
def test_a_threshold_is_a_score(engine: FaceEngine, astronaut: Array, threshold: Any) -> None:
    with pytest.raises(InvalidParameter, match="threshold"):
        engine.compare(astronaut, astronaut, threshold=threshold)
    with pytest.raises(InvalidParameter, match="threshold"):
        FaceEngine(engine.pack.folder, threads=1, threshold=threshold)


def test_the_engine_can_set_the_threshold(
    engine: FaceEngine, astronaut: Array, hopper: Array
) -> None:
    lenient = FaceEngine(engine.pack.folder, threads=1, threshold=0)
    assert lenient.threshold == 0
    assert lenient.compare(astronaut, hopper).passed
    assert lenient.contract_id == engine.contract_id
    assert "threshold=0" in repr(lenient)


def test_an_unknown_pack() -> None:
    with pytest.raises(PackNotFound, match="no-such-pack"):
        FaceEngine("no-such-pack")


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_embed_many_keeps_order_and_errors_in_place(
    engine: FaceEngine, astronaut: Array, hopper: Array, hopper_path: Path, batch_size: int
) -> None:
    images = [astronaut, NOISE, hopper, b"junk", hopper_path, REPO / "no-such-file.jpg", astronaut]
    answers = list(engine.embed_many(iter(images), batch_size))
    wanted = [
        astronaut,
        NoFaceDetected,
        hopper,
        UnreadableImage,
        hopper,
        UnreadableImage,
        astronaut,
    ]
    for answer, right in zip(answers, wanted, strict=True):
        if isinstance(right, type):
            assert type(answer) is right
        else:
            assert not isinstance(answer, Exception)
            assert answer @ engine.embed(right) >= 0.9999


def test_embed_many_on_models_of_its_own(
    engine: FaceEngine, astronaut: Array, hopper: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker's models have one thread; a share of the images runs stage by stage."""
    assert engine._worker_pipeline() is engine._pipeline  # it has one thread already
    many = FaceEngine(engine.pack.name, threads=2)
    images = [astronaut, engine.sample(hopper), NOISE, hopper]
    first = list(many.embed_many(images))
    assert many._worker_pipeline() is many._worker_pipeline() is not many._pipeline
    monkeypatch.setattr("facecore.pipeline._TOGETHER", 0)  # each picture by itself
    second = list(many.embed_many(images))
    for i, right in enumerate([astronaut, hopper, None, hopper]):
        if right is None:
            assert {type(answers[i]) for answers in (first, second)} == {NoFaceDetected}
        else:
            np.testing.assert_allclose(first[i], engine.embed(right), atol=1e-6)
            np.testing.assert_array_equal(first[i], second[i])


def test_a_worker_takes_few_images_at_a_time_on_a_cpu(engine: FaceEngine, hopper: Array) -> None:
    sizes = []

    def work(images: list[Any]) -> list[int]:
        sizes.append(len(images))
        return [0] * len(images)

    pipeline = engine._worker_pipeline()
    answers = pipeline.stream([hopper] * 40, 1000, "largest", work)
    assert len(list(answers)) == 40
    assert max(sizes) == pipeline.share == 8


def test_embed_many_of_nothing(engine: FaceEngine) -> None:
    assert list(engine.embed_many([])) == []


def test_embed_many_of_one_image_says_so(engine: FaceEngine, hopper: Array, tmp_path: Path) -> None:
    path = tmp_path / "hopper.jpg"
    cv2.imwrite(str(path), hopper)
    data = path.read_bytes()
    single: list[Any] = [hopper, hopper[..., 0], path, str(path), data, memoryview(data)]
    single += [io.BytesIO(data), Image.fromarray(hopper), engine.sample(path), 5]
    for images in single:
        with pytest.raises(InvalidParameter, match="images is"):
            engine.embed_many(images)
    (first, second) = engine.embed_many(np.stack([hopper, hopper]))
    assert np.array_equal(first, second)


def test_embed_many_embeds_no_sample_again(engine: FaceEngine, hopper: Array) -> None:
    sample = engine.sample(hopper)
    (fresh,) = engine.embed_many([sample])
    engine.embed(sample)
    fake = np.roll(sample.vectors[engine.contract_id], 1)
    sample.vectors[engine.contract_id] = fake
    (again,) = engine.embed_many([sample])
    assert np.array_equal(again, fake)
    again[0] = 2  # the caller's copy
    assert sample.vectors[engine.contract_id][0] != 2
    assert not np.array_equal(fresh, fake)
    sample.scores[engine.contract_id] = 0.0
    (refused,) = engine.embed_many([sample])
    assert isinstance(refused, UnrecognizableFace)


def test_a_crowd_is_embedded_in_runs_of_a_few(engine: FaceEngine, hopper: Array) -> None:
    pipeline, sizes = engine._worker_pipeline(), []
    samples = [engine.sample(hopper) for _ in range(19)]
    plain = pipeline.embedder.embed

    class Counting:
        def embed(self, crops: Array) -> Any:
            sizes.append(len(crops))
            return plain(crops)

    counting = Pipeline(
        pipeline.detector, Counting(), pipeline.contract, pipeline.limits,  # type: ignore[arg-type]
        gate=pipeline.gate, share=8,
    )  # fmt: skip
    vectors = counting.embed(samples)
    assert sizes == [8, 8, 3]
    assert len(vectors) == 19


def test_pixels_of_a_large_png_do_not_wait_for_the_consumer(
    engine: FaceEngine, hopper: Array
) -> None:
    large = cv2.resize(hopper, (1200, 1400))
    data = cv2.imencode(".png", large)[1].tobytes()
    (samples,) = engine.samples_many([data])
    assert not isinstance(samples, FacecoreError)
    assert samples[0].picture.nbytes == 0
    assert engine.quality(samples[0]).score > 0  # decoded again


def test_embed_many_holds_no_pixels_of_a_bad_image(engine: FaceEngine) -> None:
    (error,) = engine.embed_many([NOISE])
    assert isinstance(error, NoFaceDetected)
    assert error.__traceback__ is None  # its frames would keep the decoded image alive


def test_a_result_can_be_pickled(engine: FaceEngine, hopper: Array) -> None:
    result = engine.compare(hopper, hopper)
    copy = pickle.loads(pickle.dumps(result))
    assert (copy.score, copy.far_thresholds) == (result.score, result.far_thresholds)
    np.testing.assert_array_equal(copy.faces[0].box, result.faces[0].box)
    assert pickle.loads(pickle.dumps(engine.calibration)) == engine.calibration
    table: Any = result.far_thresholds
    table[0.01] = -1.0
    assert engine.compare(hopper, hopper).far_thresholds == copy.far_thresholds


class Failing:
    """A session that fails on the runs whose number satisfies `fails`."""

    def __init__(self, session: Any, fails: Callable[[int], bool], error: Exception) -> None:
        self.session, self.fails, self.error, self.runs = session, fails, error, 0

    def run(self, *arguments: Any) -> Any:
        self.runs += 1
        if self.fails(self.runs):
            raise self.error
        return self.session.run(*arguments)


def test_embed_many_survives_a_batch_that_does_not_fit(
    engine: FaceEngine, hopper: Array, astronaut: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = Failing(
        engine._pipeline.embedder._session, lambda n: n in (1, 3), RuntimeError("no memory")
    )
    monkeypatch.setattr(engine._pipeline.embedder, "_session", failing)
    first, second, third = engine.embed_many([hopper, astronaut, hopper])
    assert isinstance(second, FacecoreError)  # the batch failed, then its second face too
    assert "the model failed: no memory" in second.message
    np.testing.assert_allclose(first, third, atol=1e-6)


@pytest.mark.parametrize("error", [cv2.error("resize failed"), MemoryError(), RuntimeError("x")])
def test_embed_many_keeps_a_failed_detection_in_its_place(
    engine: FaceEngine, hopper: Array, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    if isinstance(error, RuntimeError):  # as ONNX Runtime raises it
        failing = Failing(engine._pipeline.detector._session, lambda _: True, error)
        monkeypatch.setattr(engine._pipeline.detector, "_session", failing)
    else:
        forward = engine._pipeline.detector._forward

        def fail(image: Picture, *arguments: Any) -> Any:
            if image.pixels() is NOISE:
                raise error
            return forward(image, *arguments)

        monkeypatch.setattr(engine._pipeline.detector, "_forward", fail)
    bad, good = engine.embed_many([NOISE, hopper])
    assert type(bad) is FacecoreError
    assert isinstance(good, FacecoreError) == isinstance(error, RuntimeError)
    link: BaseException | None = bad
    while link is not None:  # no frame keeps the decoded image alive
        assert link.__traceback__ is None
        link = link.__cause__ or link.__context__
    with pytest.raises(FacecoreError, match="image a: "):
        engine.compare(NOISE, hopper)


def test_an_error_of_the_program_itself_is_not_hidden(
    engine: FaceEngine, hopper: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine._pipeline.detector, "detect", lambda _: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        engine.detect(hopper)


def test_embed_many_reads_at_most_two_batches_ahead(engine: FaceEngine, hopper: Array) -> None:
    read = 0

    def source() -> Iterator[Array]:
        nonlocal read
        for _ in range(100):
            read += 1
            yield hopper

    answers = engine.embed_many(source(), batch_size=4)
    assert read == 0
    next(answers)
    assert read <= 8
    for _ in range(4):
        next(answers)
    assert read <= 12
    before = threading.active_count()
    answers.close()  # type: ignore[attr-defined]
    assert threading.active_count() < before


def test_embed_many_passes_on_what_the_source_raises(engine: FaceEngine, hopper: Array) -> None:
    def source() -> Iterator[Array]:
        yield hopper
        raise KeyError("the caller's own")

    with pytest.raises(KeyError, match="own"):
        list(engine.embed_many(source(), batch_size=1))


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, "2", True])
def test_embed_many_checks_its_arguments_at_once(engine: FaceEngine, batch_size: Any) -> None:
    with pytest.raises(InvalidParameter, match="batch_size"):
        engine.embed_many([], batch_size=batch_size)
    with pytest.raises(InvalidParameter, match="face"):
        engine.embed_many([], face="any")  # type: ignore[arg-type]


@pytest.mark.parametrize("single", ["portrait.jpg", b"bytes"])
def test_embed_many_refuses_a_single_image(engine: FaceEngine, single: Any) -> None:
    with pytest.raises(InvalidParameter):
        engine.embed_many(single)


def test_progress_goes_to_standard_error_only(
    engine: FaceEngine, hopper: Array, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(list(engine.embed_many([hopper] * 3, progress=True))) == 3
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "3/3" in shown.err
    list(engine.embed_many([hopper]))
    assert capsys.readouterr() == ("", "")


def test_threads_share_an_engine(
    engine: FaceEngine, astronaut: Array, hopper: Array, changed: Array
) -> None:
    images = [astronaut, hopper, changed] * 8
    serial = [engine.embed(image) for image in images[:3]] * 8
    with ThreadPoolExecutor(8) as pool:
        for vector, wanted in zip(pool.map(engine.embed, images), serial, strict=True):
            np.testing.assert_array_equal(vector, wanted)


def run(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


NO_NETWORK = """
import sys

def refuse(event, arguments):
    if event.startswith("socket."):
        raise SystemExit(f"{event} {arguments}")

sys.addaudithook(refuse)
import facecore
from pathlib import Path
pack, image = map(Path, sys.argv[1:])
result = facecore.FaceEngine(pack, threads=1).compare(image, image)
print(result.passed, *(module in sys.modules for module in ("numba", "skimage")))
"""


def test_no_network_and_no_compiler_on_the_way(engine: FaceEngine, hopper_path: Path) -> None:
    assert run(NO_NETWORK, str(engine.pack.folder), str(hopper_path)).split() == [
        "True",
        "False",
        "False",
    ]


def test_a_face_at_the_edge_of_what_aligns(engine: FaceEngine, hopper: Array) -> None:
    """A crop needs only the coordinates of the landmarks, which may lie outside the picture."""
    face = engine.largest_face(hopper)
    part = hopper[:, : int(face.landmarks[1, 0]) + 4]  # cut off next to the left eye
    assert engine.embed(part) @ engine.embed(hopper) > 0.3
    assert face.landmarks.shape == TEMPLATE.shape


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (('"cls_8", "cls_16", "cls_32"', '"bbox_8", "bbox_16", "bbox_32"'), "differ"),
        (('"obj_8", "obj_16", "obj_32"', '"o_8", "o_16", "o_32"'), "no output"),
        ((f"dimension = {DIMENSION}", "dimension = 64"), "must hold"),  # the gate's weights
        (('name = "embedding"', 'name = "vector"'), "no output"),
    ],
)
def test_a_manifest_that_is_wrong_about_its_tensors_never_loads(
    tmp_path: Path, wrong: tuple[str, str], message: str
) -> None:
    pack = tmp_path / "pack"
    shutil.copytree(shipped_root() / "compact", pack)
    text = (pack / "pack.toml").read_text()
    assert wrong[0] in text
    (pack / "pack.toml").write_text(text.replace(*wrong))
    with pytest.raises(PackCorrupt, match=message):
        FaceEngine(pack)


def test_swapped_heads_never_load(tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    shutil.copytree(shipped_root() / "compact", pack)
    text = (pack / "pack.toml").read_text()
    swapped = text.replace("bbox_", "@").replace("kps_", "bbox_").replace("@", "kps_")
    (pack / "pack.toml").write_text(swapped)
    with pytest.raises(PackCorrupt, match=r"output kps_8: .* expected \(any, any, 4\)"):
        FaceEngine(pack)


def test_a_sample_stands_for_its_image_everywhere(
    engine: FaceEngine, astronaut: np.ndarray, hopper: np.ndarray
) -> None:
    a, b = engine.sample(astronaut), engine.sample(hopper)

    assert engine.sample(a) is a
    assert a.crop.shape == (112, 112, 3)
    np.testing.assert_array_equal(a.pixels, astronaut)
    np.testing.assert_allclose(engine.embed(a), engine.embed(astronaut), atol=1e-6)
    assert engine.compare(a, b).similarity == pytest.approx(
        engine.compare(astronaut, hopper).similarity, abs=1e-6
    )
    assert engine.compare(a, a).similarity == pytest.approx(1)


def test_a_sample_is_embedded_once(
    engine: FaceEngine, astronaut: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[int] = []
    embed = engine._pipeline.embedder.embed
    monkeypatch.setattr(
        engine._pipeline.embedder, "embed", lambda crops: (runs.append(len(crops)), embed(crops))[1]
    )
    sample = engine.sample(astronaut)
    first = engine.embed(sample)
    first *= 0  # a caller's copy
    engine.compare(sample, sample)

    assert runs == [1]
    assert np.linalg.norm(engine.embed(sample)) == pytest.approx(1)


WARM = """
import sys, numpy as np, facecore
from pathlib import Path
pack, image, folder = map(Path, sys.argv[1:])
engine = facecore.FaceEngine(pack, threads=1)
engine.warmup()
from numba.core import event
with event.install_recorder("numba:compile") as compiled:
    engine.compare(image, image), engine.quality(image), engine.attributes(image)
    list(engine.embed_many([image] * 3))
    with facecore.Gallery(folder, engine) as gallery:
        gallery.create_group("a")
        gallery.add("a", image, "u")
        dimension = engine.pack.embedder.output.dimension
        rows = np.random.default_rng(0).normal(size=(3000, dimension))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        users = [f"u{i}" for i in range(len(rows))]
        gallery.add_templates("a", rows, users, contract=engine.contract_id)
        from facecore.matching import scanning
        scanning._NUMPY_PRODUCTS = 0  # the kernel from the first search on
        gallery.search(image, far=0.001)
print(len(compiled.buffer), engine._opened.keys() == {"liveness", "attributes"})
"""


def test_after_warmup_nothing_is_compiled(
    compact: FaceEngine, hopper_path: Path, tmp_path: Path
) -> None:
    answer = run(WARM, str(compact.pack.folder), str(hopper_path), str(tmp_path / "gallery"))
    assert answer.split() == ["0", "True"]


def test_one_spelling_for_the_face_and_for_id_portraits() -> None:
    """`face=` for every image of one face, `id_portrait=` for every method that returns scores."""
    scored = [FaceEngine.compare, FaceEngine.cross_compare, Gallery.search, Gallery.search_many]
    engine = ("sample", "embed", "embed_many", "quality", "attributes", "liveness")
    others = [getattr(FaceEngine, name) for name in engine]
    for method in (*scored, *others, Gallery.add, Gallery.add_many):
        face = inspect.signature(method).parameters["face"]
        assert (face.kind, face.default) == (face.KEYWORD_ONLY, "largest"), method
    for method in scored:
        portrait = inspect.signature(method).parameters["id_portrait"]
        assert (portrait.kind, portrait.default) == (portrait.KEYWORD_ONLY, False), method


def test_the_central_face_stands_for_every_image(
    engine: FaceEngine, astronaut: Array, hopper: Array, tmp_path: Path
) -> None:
    """A large face at the side, a smaller one in the middle."""
    middle = cv2.resize(hopper, None, fx=0.3, fy=0.3, interpolation=cv2.INTER_AREA)
    height, width = astronaut.shape[:2]
    scene = np.zeros((height, 2 * width + middle.shape[1], 3), np.uint8)
    scene[:, :width] = astronaut
    scene[: middle.shape[0], width : width + middle.shape[1]] = middle
    assert engine.compare(scene, astronaut).passed
    assert not engine.compare(scene, astronaut, face="central").passed
    assert engine.compare(scene, hopper, face="central").passed
    assert engine.cross_compare(scene, hopper, scene, "loop", face="central").passed
    with Gallery(tmp_path / "gallery", engine) as gallery:
        gallery.create_group("staff")
        gallery.add("staff", scene, "grace", face="central")
        gallery.add("staff", scene, "eileen")
        assert gallery.search(hopper, limit=1)[0].user_id == "grace"
        assert gallery.search(scene, limit=1)[0].user_id == "eileen"
        assert gallery.search(scene, limit=1, face="central")[0].user_id == "grace"
        best = gallery.search(hopper, id_portrait=True)[0]
        table = engine.calibration_for(id_portrait=True)
        assert best.score == float(table.score(best.similarity))


@pytest.mark.parametrize("call", ["compare", "cross_compare", "add", "search"])
def test_another_choice_of_face_is_refused(
    engine: FaceEngine, hopper: Array, tmp_path: Path, call: str
) -> None:
    with Gallery(tmp_path / "gallery", engine) as gallery:
        gallery.create_group("staff")
        calls: dict[str, Any] = {
            "compare": lambda **more: engine.compare(hopper, hopper, **more),
            "cross_compare": lambda **more: engine.cross_compare(hopper, hopper, hopper, **more),
            "add": lambda **more: gallery.add("staff", hopper, "u", **more),
            "search": lambda **more: gallery.search(hopper, **more),
        }
        with pytest.raises(InvalidParameter, match="face is 'smallest'"):
            calls[call](face="smallest")


@pytest.fixture
def both(astronaut: Array, hopper: Array) -> Array:
    """Two people on one picture: the astronaut, and Grace Hopper, whose face is the larger."""
    small = cv2.resize(astronaut, (512, 600))
    return np.hstack([small, hopper])


def test_samples_are_all_faces_largest_first(
    engine: FaceEngine, both: Array, astronaut: Array, hopper: Array
) -> None:
    samples = engine.samples(both)
    assert [len(sample.others) for sample in samples] == [1, 1]
    sizes = [sample.face.size for sample in samples]
    assert sizes == sorted(sizes, reverse=True)
    for sample, alone in zip(samples, (hopper, astronaut), strict=True):
        assert engine.compare(sample, alone).similarity > 0.8
    assert engine.samples(np.zeros((200, 200, 3), np.uint8)) == []
    assert engine.samples(samples[1]) == [samples[1]]


def test_samples_many_keeps_order_and_errors(engine: FaceEngine, both: Array) -> None:
    first, bad, last = engine.samples_many([both, b"no image", both[:, :512]])
    assert isinstance(bad, UnreadableImage)
    assert not isinstance(first, FacecoreError)
    assert not isinstance(last, FacecoreError)
    assert (len(first), len(last)) == (2, 1)
    np.testing.assert_allclose(
        engine.embed(first[0]), engine.embed(engine.samples(both)[0]), atol=1e-6
    )


def test_compare_all_finds_the_one_who_is_not_the_largest(
    engine: FaceEngine, both: Array, astronaut: Array
) -> None:
    one = engine.compare(astronaut, both)
    assert not one.passed
    assert one.others == (0, 1)
    best, other = engine.compare_all(astronaut, both)
    assert best.passed
    assert best.similarity > other.similarity
    assert best.faces[1].box[0] < 512
    assert best.others == (0, 1)
    assert engine.compare_all(astronaut, np.zeros((200, 200, 3), np.uint8)) == []
    with pytest.raises(NoFaceDetected, match="image reference"):
        engine.compare_all(np.zeros((200, 200, 3), np.uint8), astronaut)


def test_several_faces_are_refused_where_that_is_asked(
    engine: FaceEngine, both: Array, astronaut: Array
) -> None:
    with pytest.raises(SeveralFacesDetected, match=r"image b: 2 faces .* \d+ and \d+ pixels"):
        engine.compare(astronaut, both, if_many="refuse")
    with pytest.raises(SeveralFacesDetected):
        engine.compare(astronaut, engine.sample(both), if_many="refuse")
    assert engine.compare(astronaut, astronaut, if_many="refuse").passed
    alone, refused, sample = engine.embed_many(
        [astronaut, both, engine.sample(both)], if_many="refuse"
    )
    assert isinstance(alone, np.ndarray)
    assert isinstance(refused, SeveralFacesDetected)
    assert isinstance(sample, SeveralFacesDetected)
    with pytest.raises(InvalidParameter, match="if_many"):
        engine.compare(astronaut, both, if_many="all")  # type: ignore[arg-type]


def test_quality_says_whether_a_face_is_alone(
    engine: FaceEngine, both: Array, astronaut: Array
) -> None:
    assert engine.quality(astronaut).measures["single_face"] == 100
    quality = engine.quality(both)
    first, second = (np.prod(f.box[2:] - f.box[:2]) for f in engine.detect(both))
    assert quality.measures["single_face"] == pytest.approx(100 * (1 - second / first), abs=1)
