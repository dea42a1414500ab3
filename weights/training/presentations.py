"""Step 3 of the liveness classifier: collect faces with the networks' answers and the cues.

Real attacks and their genuine counterparts come from the sources in ``$FACECORE_DATA/liveness``.
The script adds genuine faces of other archives, of scenes and of LFW people who are in no test
pair, and simulated attacks with these LFW people.

    python weights/training/presentations.py --view RUN/view.onnx --out presentations.npz
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime as ort
from camera import Image, jpeg
from data import ARCHIVES, crops, data_root, photographs
from media import SPECIES
from numpy.typing import NDArray
from onnx import helper
from onnxfile import load_widened
from recapture import GENUINE, photograph, recapture

from facecore import FaceEngine
from facecore.face.pad_features import CUES, PATCH, VIEW, measure, region, views

COMPACT = Path(__file__).parents[1] / "compact"
NUMBERS = 16  # of a view
# Where a face is in the 128x128 crops: x1, y1, x2, y2.
CROP_BOX = np.array([24.0, 20.0, 104.0, 122.0])
# One repository has a source of pictures and one of video frames.
SAME = {
    name: name.removeprefix("vid_") for name in ("vid_lestari", "vid_manikantha", "vid_tranvan")
}

Box = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Presentation:
    """A picture or a part of one, with the face's box in its pixels.

    Attributes
    ----------
    source : str
        Name of the group that is held out together.
    species : str
        "genuine", or the instrument of the attack.
    kind : str
        "source" (real, with attacks), "genuine" (real) or "simulated".
    """

    pixels: Image
    box: Box
    source: str
    species: str
    kind: str


def half(person: str) -> bool:
    """Whether a person of LFW is for training; the others set the threshold."""
    return hashlib.sha256(person.encode()).digest()[0] % 2 == 0


def licensed_sources(root: Path) -> set[str]:
    """The sources whose pictures come with a licence."""
    with (root / "liveness/sources.csv").open(encoding="utf-8") as file:
        return {
            SAME.get(row["source"], row["source"])
            for row in csv.DictReader(file)
            if row["licence_file"] != "none"
        }


class Archive:
    """Files of a tar by name."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self.tar = tar
        self.files = {Path(member.name).name: member for member in tar if member.isfile()}

    def read(self, name: str) -> bytes:
        handle = self.tar.extractfile(self.files[name])
        return b"" if handle is None else handle.read()

    def table(self, name: str) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.read(name).decode())))

    def picture(self, name: str) -> Image:
        coded = np.frombuffer(self.read(name), np.uint8)
        return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)


def real(root: Path) -> Iterator[Presentation]:
    """Yield every picture of the sources, with the box from its set."""
    for path in sorted((root / "liveness").glob("*.tar.gz")):
        source = path.name.removesuffix(".tar.gz")
        with tarfile.open(path) as tar:
            archive = Archive(tar)
            for row in archive.table("boxes.csv"):
                x, y, w, h = (float(row[f"box_{side}"]) for side in "xywh")
                species = row["file"].partition("_")[0].replace("live", GENUINE)
                box, name = np.array([x, y, x + w, y + h]), SAME.get(source, source)
                yield Presentation(archive.picture(row["file"]), box, name, species, "source")


def other_genuine(root: Path, each: int, rng: np.random.Generator) -> Iterator[Presentation]:
    """Yield genuine faces of people who are in no test set: crops, scenes, whole LFW pictures."""
    for archive in ARCHIVES:
        if archive in ("synthetic", "lfw_rest"):
            continue
        found = [p for n, p in crops(root, archives=[archive]) if "/fake_" not in n]
        for i in rng.permutation(len(found))[:each]:
            yield Presentation(found[i], CROP_BOX.copy(), archive, GENUINE, "genuine")
    engine = FaceEngine("compact", threads=1)
    for person, path in photographs(root, calibration=True):
        picture = np.asarray(cv2.imread(str(path)), np.uint8)
        faces = engine.detect(picture)
        if faces:
            middle = np.array(picture.shape[1::-1]) / 2
            near = min(faces, key=lambda f: np.hypot(*((f.box[:2] + f.box[2:]) / 2 - middle)))
            source = "lfw" if half(person) else "lfw threshold"
            yield Presentation(picture, near.box.astype(np.float64), source, GENUINE, "genuine")
    for picture, box in scene_faces(root):
        yield Presentation(picture, box, "scenes", GENUINE, "genuine")


def scene_faces(root: Path) -> Iterator[tuple[Image, Box]]:
    """Yield pictures of street and kitchen scenes with the box of a face of 40 pixels or more."""
    with tarfile.open(root / "scenes/scenes_train.tar.gz") as tar:
        scenes = Archive(tar)
        for row in scenes.table("labels.csv"):
            box = np.array([float(row[key] or 0) for key in ("x1", "y1", "x2", "y2")])
            if row["kind"] == "face" and min(box[2:] - box[:2]) >= 40:
                name = Path(row["file"]).name
                yield scenes.picture(name), box


def simulated(root: Path, count: int, rng: np.random.Generator) -> Iterator[Presentation]:
    """Yield pictures by the simulated camera; two fifths of the recaptures are `worn`."""
    engine = FaceEngine("compact", threads=1)
    paths = [path for person, path in photographs(root, calibration=True) if half(person)]
    for number in range(count):
        picture = np.asarray(cv2.imread(str(paths[rng.integers(len(paths))])), np.uint8)
        species = GENUINE if number % 4 == 0 else str(rng.choice(SPECIES))
        seed, scale = int(rng.integers(2**31)), float(np.exp(rng.uniform(np.log(0.7), np.log(2.2))))
        if species == GENUINE:
            taken = photograph(picture, seed, held_out=False, scale=scale)
        else:
            framed = bool(rng.random() < 0.25)
            taken = recapture(picture, species, seed, held_out=False, scale=scale, framed=framed)
            if rng.random() < 0.4:
                taken = worn(taken, rng)
        faces = engine.detect(taken)
        if faces:
            box = faces[0].box.astype(np.float64)
            yield Presentation(taken, box, f"simulated {species}", species, "simulated")


def worn(picture: Image, rng: np.random.Generator) -> Image:
    """Degrade a recapture as webcams and phones do: soft, bluish, blown out, veiled, compressed."""
    soft = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.5, 2.0))).astype(np.float32)
    soft *= np.float32(np.exp(rng.normal(0.15, 0.2)))
    soft *= np.exp(rng.normal((0.06, 0, -0.04), 0.05)).astype(np.float32)
    soft += np.float32(rng.uniform(0, 30))
    return jpeg(np.clip(np.rint(soft), 0, 255).astype(np.uint8), int(rng.integers(35, 90)))


def frozen(student: Path | None) -> onnx.ModelProto:
    """Join both networks: `views` -> ``view``, numbers of the view, and ``dots`` of the patch.

    The view's network is the one that `views.py` exported to `student`, or else the one in the
    pack.  The patch's network is ``dots.onnx``, from `dots.py`, which gives the log odds that the
    patch shows the dots of a medium.
    """
    compose, tensor = onnx.compose, helper.make_tensor_value_info
    if student is None:
        pack = onnx.shape_inference.infer_shapes(load_widened(COMPACT / "liveness.onnx"))
        view = onnx.utils.Extractor(pack).extract_model(["view/input"], ["view/view"]).graph
    else:
        view = compose.add_prefix(onnx.load(student), "view/").graph
    dots = compose.add_prefix(onnx.load(Path(__file__).with_name("dots.onnx")), "dots/").graph
    integers = {"from_view": [0, PATCH], "to_view": [VIEW, PATCH + VIEW], "from_patch": [0, 0],
                "to_patch": [PATCH, PATCH], "axes": [2, 3]}  # fmt: skip
    weights = [onnx.numpy_helper.from_array(np.array(v), k) for k, v in integers.items()]
    cut = [
        helper.make_node("Slice", ["input", "from_patch", "to_patch", "axes"], ["dots/input"]),
        helper.make_node("Slice", ["input", "from_view", "to_view", "axes"], ["view/input"]),
    ]
    last = [
        helper.make_node("Identity", ["view/view"], ["view"]),
        helper.make_node("Identity", ["dots/attack"], ["dots"]),
    ]
    graph = helper.make_graph(
        [*cut, *view.node, *dots.node, *last], "liveness",
        [tensor("input", 1, ["N", 3, PATCH, PATCH + VIEW])],
        [tensor("view", 1, ["N", NUMBERS]), tensor("dots", 1, ["N", 1])],
        [*weights, *view.initializer, *dots.initializer],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--view", type=Path, help="network of views.py; else that of the pack")
    parser.add_argument("--each", type=int, default=200, help="faces of every other archive")
    parser.add_argument("--simulated", type=int, default=240)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    root, rng = data_root(), np.random.default_rng(args.seed)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    network = frozen(args.view).SerializeToString()
    session = ort.InferenceSession(network, options, ["CPUExecutionProvider"])
    found: dict[str, list[object]] = {
        name: [] for name in ("view", "dots", "cues", "source", "species", "kind")
    }
    for make in (
        real(root), other_genuine(root, args.each, rng), simulated(root, args.simulated, rng)
    ):  # fmt: skip
        for p in make:
            reduced = region(p.pixels, p.box)
            seen = views(p.pixels, p.box, reduced).transpose(2, 0, 1)[None].astype(np.float32)
            view, dots = session.run(["view", "dots"], {"input": seen})
            found["view"].append(view[0])
            found["dots"].append(dots[0, 0])
            found["cues"].append(list(measure(reduced).values()))
            for field in ("source", "species", "kind"):
                found[field].append(getattr(p, field))
            if len(found["kind"]) % 500 == 0:
                print(len(found["kind"]), p.source, flush=True)
    with args.out.open("wb") as file:
        arrays = {name: np.array(values) for name, values in found.items()}
        np.savez(file, names=np.array(list(CUES)), **arrays)


if __name__ == "__main__":
    main()
