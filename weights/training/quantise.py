"""Make the int8 variant of the compact pack from the pack's present files, in one command.

ONNX Runtime's static quantisation writes a QDQ graph: 7-bit weights with a scale per output
channel, and 8-bit activations with ranges measured on training crops.  The first layer and the
last, which is the answer itself, stay in float.  The detector is the float pack's, because a
quantised one takes longer (1.1 times as long at 320 pixels).  The script then measures the
variant's calibration, and compares its vectors with the float pack's.  The manifest takes over the
contract only if they are close enough.

    python weights/training/quantise.py             # writes weights/compact-int8
    python weights/training/quantise.py --search    # compares recipes, writes nothing
    python weights/training/quantise.py --storage   # what float16 storage costs, writes nothing

No picture of LFW's test pairs is read: recipes are compared on the development people of
``data.py`` and on the people of the calibration.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from calibrate import calibrate
from data import crops, data_root, person_of, photographs
from numpy.typing import NDArray
from onnxfile import load_widened, save_half
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from facecore import FaceEngine
from facecore.errors import PackCorrupt
from facecore.evaluation.compatibility import Interchange, compare_variants
from facecore.evaluation.vectors import embed_all
from facecore.face.embedding import Embedder
from facecore.models.manifest import read_manifest
from facecore.models.packs import load_pack
from facecore.models.session import create_session

WEIGHTS = Path(__file__).parents[1]
COMPACT, INT8 = WEIGHTS / "compact", WEIGHTS / "compact-int8"
LAYERS = ("Conv", "Gemm", "MatMul")
TYPES = (*LAYERS, "Add", "Relu", "Flatten")
FARS = (0.01, 0.001)


@dataclass(frozen=True)
class Recipe:
    """Method of the activation ranges, and the layers that stay in float."""

    method: str = "MinMax"  # or Percentile, Entropy
    percentile: float = 99.999
    symmetric: bool = False  # signed activations around zero instead of 0..255
    stem: bool = True  # whether the first layer is quantised
    last: bool = False  # whether the last layers are


LFW = (
    "LFW deep-funneled, the pictures of people who occur in none of the 6,000 test pairs, "
    "the face nearest to the centre"
)
RECIPES = {
    "minmax": Recipe(),
    "minmax, symmetric": Recipe(symmetric=True),
    "minmax, all layers": Recipe(last=True),
    "percentile 99.99": Recipe("Percentile", 99.99),
    "percentile 99.999": Recipe("Percentile"),
    "the same, stem in float": Recipe("Percentile", stem=False),
    "entropy": Recipe("Entropy"),
}
CHOSEN = RECIPES["the same, stem in float"]


class Recorder:
    """A session that records its feeds."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.feeds: list[dict[str, NDArray[np.float32]]] = []

    def run(self, names: Sequence[str] | None, feed: dict[str, NDArray[np.float32]]) -> Any:
        self.feeds.append(dict(feed))
        return self._session.run(names, feed)


class Feeds(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, feeds: Sequence[dict[str, NDArray[np.float32]]]) -> None:
        self._left = iter(feeds)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self._left, None)


def training_feeds(count: int, seed: int) -> list[dict[str, NDArray[np.float32]]]:
    """Return the float embedder's feeds for training crops, one crop at a time."""
    loaded, rng = load_pack(COMPACT), np.random.default_rng(seed)
    recorder = Recorder(create_session(loaded.embedder, threads=1, name="embedder"))
    embedder = Embedder(recorder, loaded.pack.embedder)  # type: ignore[arg-type]
    pool = [crop for _, crop in crops(data_root())]
    for i in rng.choice(len(pool), count, replace=False):
        embedder.embed(pool[i][None, 8:120, 8:120])
    return recorder.feeds


def last_layers(graph: onnx.GraphProto) -> list[str]:
    """Return the names of the layers with weights that no other such layer follows."""
    maker = {output: node for node in graph.node for output in node.output}
    found, waiting = set(), [maker[output.name] for output in graph.output]
    while waiting:
        node = waiting.pop()
        if node.op_type in LAYERS:
            found.add(node.name)
        else:
            waiting += [maker[name] for name in node.input if name in maker]
    return sorted(found)


def quantise(recipe: Recipe, feeds: Sequence[dict[str, NDArray[np.float32]]], out: Path) -> None:
    """Write the quantised network; its float layers are stored as float16."""
    with tempfile.TemporaryDirectory() as folder:
        plain, ready, done = (str(Path(folder) / f"{n}.onnx") for n in ("plain", "ready", "done"))
        onnx.save(load_widened(COMPACT / "embedder.onnx"), plain)
        quant_pre_process(plain, ready, skip_symbolic_shape=True)
        graph = onnx.load(ready).graph
        float_nodes = [] if recipe.last else last_layers(graph)
        if not recipe.stem:
            float_nodes.append(next(n.name for n in graph.node if n.op_type == "Conv"))
        quantize_static(
            ready, done, Feeds(feeds),
            quant_format=QuantFormat.QDQ, per_channel=True,
            weight_type=QuantType.QInt8,
            # Seven bits: AVX2 adds two products of an unsigned and a signed byte in 16 bits, which
            # full-range weights overflow on every processor without VNNI.
            reduce_range=True,
            activation_type=QuantType.QInt8 if recipe.symmetric else QuantType.QUInt8,
            calibrate_method=CalibrationMethod[recipe.method],
            op_types_to_quantize=list(TYPES), nodes_to_exclude=float_nodes,
            extra_options={
                "ActivationSymmetric": recipe.symmetric, "CalibPercentile": recipe.percentile,
            },
        )  # fmt: skip
        save_half(onnx.load(done), out, least_rank=2)


@dataclass(frozen=True)
class People:
    """Aligned crops (N, 112, 112, 3), and the person on each."""

    crops: NDArray[np.uint8]
    names: NDArray[np.str_]


def development() -> People:
    pairs = list(crops(data_root(), development=True))
    names = np.array([person_of(name) for name, _ in pairs])
    return People(np.stack([crop[8:120, 8:120] for _, crop in pairs]), names)


def calibration_people() -> People:
    engine = FaceEngine(COMPACT, threads=1)
    found = [
        (engine.sample(path, face="central").crop, name)
        for name, path in photographs(data_root(), calibration=True)
    ]
    return People(np.stack([crop for crop, _ in found]), np.array([name for _, name in found]))


def vectors(model: bytes, people: People) -> NDArray[np.float32]:
    spec = load_pack(COMPACT).pack.embedder
    embedder = Embedder(create_session(model, threads=1, name="embedder"), spec)
    parts = (people.crops[i : i + 32] for i in range(0, len(people.crops), 32))
    return np.concatenate([embedder.embed(part) for part in parts])


def thresholds(unit: NDArray[np.float32], names: NDArray[np.str_]) -> NDArray[np.float64]:
    """Return the similarities at which the false match rates are `FARS`."""
    impostor = (unit @ unit.T)[names[:, None] != names[None]]
    return np.quantile(impostor, 1 - np.array(FARS)).astype(np.float64)


def search(count: int, seed: int) -> None:
    """Print the effect of each recipe on the embedder."""
    sets = {"development": development(), "calibration": calibration_people()}
    plain = {n: vectors((COMPACT / "embedder.onnx").read_bytes(), p) for n, p in sets.items()}
    feeds = training_feeds(count, seed)
    print("recipe                 kB     set          cosine mean, 1 %   TAR 1 %, 0.1 % (float's)")
    for name, recipe in RECIPES.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "embedder.onnx"
            quantise(recipe, feeds, path)
            data = path.read_bytes()
        for title, people in sets.items():
            own = vectors(data, people)
            met = compare_variants(plain[title], own, people.names, ())
            alone = compare_variants(own, own, people.names, thresholds(own, people.names))
            float_ = compare_variants(
                plain[title], plain[title], people.names, thresholds(plain[title], people.names)
            )
            print(
                f"{name:22} {len(data) // 1000:5}  {title:12} {met.cosine_mean:.5f} "
                f"{met.cosine_low:.5f}   " + " ".join(f"{1 - v:.4f}" for v in alone.fnmr)
                + "  (" + " ".join(f"{1 - v:.4f}" for v in float_.fnmr) + ")", flush=True,
            )  # fmt: skip


def storage(seed: int) -> None:
    """Print how far the vectors of float32 storage would lie from those of the pack.

    The pack's weights were rounded to float16.  Their old values lay within half a step of it,
    so this draws values uniformly from that range.
    """
    people, rng = calibration_people(), np.random.default_rng(seed)
    stored = COMPACT / "embedder.onnx"
    model = load_widened(stored)
    halves = {t.name.removesuffix(".half") for t in onnx.load(stored).graph.initializer
              if t.name.endswith(".half")}  # fmt: skip
    for tensor in model.graph.initializer:
        if tensor.name in halves:
            values = onnx.numpy_helper.to_array(tensor)
            step = np.abs(np.spacing(values.astype(np.float16))).astype(np.float32)
            moved = values + step * rng.uniform(-0.5, 0.5, values.shape).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(moved, tensor.name))
    pack, before = (vectors(m, people) for m in (stored.read_bytes(), model.SerializeToString()))
    found = compare_variants(before, pack, people.names, thresholds(before, people.names))
    print("float32 storage against the pack's float16:", *lines(found), sep="\n")


def manifest_text(plain: str) -> str:
    """Turn the float pack's manifest into the variant's; the measurements stay the float pack's."""
    text = re.sub(r'(?m)^name = "compact"$', 'name = "compact-int8"\nshares = "compact"', plain)
    summary = "The compact pack in 8 bits: smaller and faster on the CPUs of edge boxes; ships too"
    text = re.sub(r'(?m)^summary = ".*"$', f'summary = "{summary}"', text, count=1)
    data = (INT8 / "embedder.int8.onnx").read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    text, found = re.subn(
        r'file = "embedder\.onnx"\nsize = \d+\nsha256 = "[0-9a-f]+"',
        f'file = "embedder.int8.onnx"\nsize = {len(data)}\nsha256 = "{digest}"',
        text,
    )
    if found != 1:
        raise SystemExit("the compact pack's manifest has no embedder")
    before, after = text.split("[embedder]", 1)
    quantised = 'source = "facecore, weights/training, quantised from the pack compact"'
    after = re.sub(r'(?m)^source = "facecore, weights/training"$', quantised, after, count=1)
    return f"{before}[embedder]{after}"


def interchange_lines(found: Interchange, contract: str, identities: int) -> list[str]:
    rates = zip(
        found.thresholds, found.fmr, found.mixed_fmr, found.fnmr, found.mixed_fnmr, strict=True
    )
    return [
        "  # Gallery of the pack compact, probes of this one, each through its whole engine.",
        "  [embedder.interchange]",
        '  pack = "compact"',
        f'  contract = "{contract}"',
        f'  dataset = "{LFW}"',
        f"  pictures = {found.pictures}",
        f"  identities = {identities}",
        f"  genuine = {found.genuine}",
        f"  impostor = {found.impostor}",
        f"  cosine_mean = {found.cosine_mean:.5f}",
        f"  cosine_low = {found.cosine_low:.5f}",
        "  rates = [",
        *(
            f"    {{ similarity = {t:.6f}, fmr = {a:.6g}, mixed_fmr = {b:.6g}, "
            f"fnmr = {c:.6g}, mixed_fnmr = {d:.6g} }},"
            for t, a, b, c, d in rates
        ),
        "  ]",
        "",
    ]


def lines(found: Interchange) -> Iterator[str]:
    yield (
        f"cosine of one picture's two vectors: mean {found.cosine_mean:.4f}, "
        f"1 % below {found.cosine_low:.4f} ({found.pictures} pictures)"
    )
    for i, t in enumerate(found.thresholds):
        yield (
            f"at {t:.4f}: FMR {found.fmr[i]:.4%} own, {found.mixed_fmr[i]:.4%} mixed; "
            f"FNMR {found.fnmr[i]:.2%} own, {found.mixed_fnmr[i]:.2%} mixed"
        )


def write_interchange() -> None:
    """Measure whether the variant's vectors keep the float pack's contract, and record it."""
    pictures = list(photographs(data_root(), calibration=True))
    names, paths = np.array([n for n, _ in pictures]), [path for _, path in pictures]
    gallery, probe = FaceEngine(COMPACT), FaceEngine(INT8)
    knots = [knot for knot in gallery.pack.embedder.calibration.knots if knot.score >= 70]
    found = compare_variants(
        *(embed_all(engine, paths, "central", True).vectors for engine in (gallery, probe)),
        names,
        [knot.similarity for knot in knots],
    )
    print("\n".join(lines(found)))
    manifest = INT8 / "pack.toml"
    text = manifest.read_text(encoding="utf-8")
    new = "\n".join(interchange_lines(found, gallery.contract_id, len(np.unique(names))))
    at = text.index("  # low and high")
    partial = manifest.with_suffix(".new")
    partial.write_text(text[:at] + new + "\n" + text[at:], encoding="utf-8")
    try:
        read_manifest(partial)
    except PackCorrupt as error:  # the message says what is too far apart
        partial.unlink()
        if "interchange" not in str(error):
            raise
        print(f"the variant keeps a contract of its own: {error}")
        return
    partial.replace(manifest)
    print(f"the variant has the contract of compact, {gallery.contract_id}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--search", action="store_true", help="compare recipes of the embedder")
    parser.add_argument("--storage", action="store_true", help="measure what float16 costs")
    parser.add_argument("--count", type=int, default=256, help="training crops for the ranges")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    logging.disable(logging.WARNING)  # onnxruntime.quantization advises what is done here anyway
    if args.search or args.storage:
        search(args.count, args.seed) if args.search else storage(args.seed)
        return
    INT8.mkdir(exist_ok=True)
    file = INT8 / "embedder.int8.onnx"
    quantise(CHOSEN, training_feeds(args.count, args.seed), file)
    print(f"{file.name}: {file.stat().st_size:,} bytes")
    plain = (COMPACT / "pack.toml").read_text(encoding="utf-8")
    (INT8 / "pack.toml").write_text(manifest_text(plain), encoding="utf-8")
    print("\n".join(calibrate(INT8)))
    write_interchange()


if __name__ == "__main__":
    main()
