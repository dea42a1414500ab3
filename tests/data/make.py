"""Write the golden files of this version: ``python tests/data/make.py`` in the repository's root.

The files go to a folder named after the version and never change again. test_golden.py opens the
folders of all versions. The script never overwrites a folder.
``python tests/data/make.py encrypted`` writes the faces of version 0.1.0 as an encrypted gallery
and archive.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))

from templates import TemplateEngine, unit  # noqa: E402

import facecore  # noqa: E402
from facecore.gallery.archive import export_groups  # noqa: E402
from facecore.gallery.index import HnswIndex, generations  # noqa: E402
from facecore.gallery.sqlite.rekey import rekey  # noqa: E402
from facecore.models.calibration_file import CalibrationFile, write_calibration  # noqa: E402
from facecore.models.manifest import contract_id, read_manifest  # noqa: E402
from facecore.models.packs import load_pack  # noqa: E402

KEY = bytes(range(32))  # of the encrypted files
D = 12  # numbers of a template
FACES = 40
# Landmarks of a detected face, relative to its cell's centre, in cells of 32 pixels.
POINTS = [-0.7, -0.4, 0.7, -0.4, 0.0, 0.2, -0.6, 0.9, 0.6, 0.9]

MANIFEST = """format = 1
name = "golden"
version = "1"
summary = "Tiny models that find bright squares and average their colours: for tests"

[detector]
{detector}
architecture = "yunet"
license = "Apache-2.0"
source = "tests/data/make.py"
training_data = "none"
caveat = "finds no faces"
threshold = 0.6

  [detector.input]
  name = "input"
  layout = "NCHW"
  channels = "BGR"
  height = 0
  width = 0
  mean = [0.0, 0.0, 0.0]
  std = [255.0, 255.0, 255.0]

  [detector.output]
  names = ["cls_32", "obj_32", "bbox_32", "kps_32"]
  strides = [32]

[embedder]
{embedder}
architecture = "average"
license = "Apache-2.0"
source = "tests/data/make.py"
training_data = "none"
caveat = "knows no faces"
alignment = "arcface-5pt-112"
max_batch = 0

  [embedder.input]
  name = "input"
  layout = "NCHW"
  channels = "RGB"
  height = 112
  width = 112
  mean = [127.5, 127.5, 127.5]
  std = [127.5, 127.5, 127.5]

  [embedder.output]
  name = "output"
  dimension = 12

  [embedder.calibration]
  dataset = "invented"
  method = "invented"
  identities = 10
  genuine = 20
  impostor = 1000
  tail = "exponential"
  tail_scale = 0.03
  knots = [
    {{ score = 50.0, far = 0.1, similarity = 0.2, low = 0.09, high = 0.11 }},
    {{ score = 70.0, far = 0.01, similarity = 0.4, low = 0.009, high = 0.011 }},
    {{ score = 80.0, far = 0.001, similarity = 0.5, low = 0.0, high = 0.002, measured = false }},
    {{ score = 90.0, far = 0.0001, similarity = 0.6, low = 0.0, high = 0.002, measured = false }},
  ]
"""


def model(
    nodes: list[onnx.NodeProto], outputs: list[onnx.ValueInfoProto], size: list[str]
) -> bytes:
    source = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, *size])
    graph = helper.make_graph(nodes, "tiny", [source], outputs)
    opset = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())


def constant(name: str, value: np.ndarray) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=onnx.numpy_helper.from_array(value))


def detector() -> bytes:
    """Return a detector that finds a face, 4 cells wide, at each nearly white cell of 32 pixels."""
    pooled = helper.make_node(
        "AveragePool", ["input"], ["cells"], kernel_shape=[32, 32], strides=[32, 32]
    )
    nodes, outputs = [pooled], []
    heads = {"cls": [0.0], "obj": [0.0], "bbox": [0.5, 0.5, *np.log([4.0, 4.0])]}
    heads["kps"] = [0.5 + point for point in POINTS]
    for name, bias in heads.items():
        width = len(bias)
        weight = np.full((width, 3, 1, 1), 1 / 3 if name in ("cls", "obj") else 0, np.float32)
        nodes += [
            constant(f"{name}_w", weight),
            constant(f"{name}_b", np.array(bias, np.float32)),
            constant(f"{name}_shape", np.array([0, -1, width])),
            helper.make_node("Conv", ["cells", f"{name}_w", f"{name}_b"], [f"{name}_maps"]),
            helper.make_node("Transpose", [f"{name}_maps"], [f"{name}_last"], perm=[0, 2, 3, 1]),
            helper.make_node("Reshape", [f"{name}_last", f"{name}_shape"], [f"{name}_32"]),
        ]
        shape = ["N", "cells", width]
        outputs.append(helper.make_tensor_value_info(f"{name}_32", TensorProto.FLOAT, shape))
    return model(nodes, outputs, ["H", "W"])


def embedder() -> bytes:
    """Return an embedder whose output is the mean of each colour in each quarter of the crop."""
    nodes = [
        helper.make_node(
            "AveragePool", ["input"], ["quarters"], kernel_shape=[56, 56], strides=[56, 56]
        ),
        constant("shape", np.array([0, D])),
        helper.make_node("Reshape", ["quarters", "shape"], ["output"]),
    ]
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["N", D])
    return model(nodes, [output], [112, 112])


def pack(folder: Path) -> None:
    folder.mkdir()
    files = {}
    for role, data in (("detector", detector()), ("embedder", embedder())):
        (folder / f"{role}.onnx").write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        files[role] = f'file = "{role}.onnx"\nsize = {len(data)}\nsha256 = "{digest}"'
    (folder / "pack.toml").write_text(MANIFEST.format(**files), encoding="utf-8")


def main() -> None:
    place = HERE / f"v{facecore.__version__}"
    place.mkdir()
    pack(place / "pack")
    contracts = {}
    for name in ("compact", "compact-int8"):  # every section that a manifest can have
        manifest = HERE.parents[1] / "weights" / name / "pack.toml"
        shutil.copy(manifest, place / f"{name}.toml")
        contracts[f"{name}.toml"] = contract_id(read_manifest(manifest).embedder)
    engine = TemplateEngine(place / "pack")
    vectors = unit(np.random.default_rng(0).standard_normal((FACES, D)))
    users = [f"u{i // 2}" for i in range(FACES)]  # two faces each
    with facecore.Gallery(place / "gallery", engine) as gallery:
        gallery.create_group("staff", title="Staff — 職員", description="everybody")
        gallery.create_group("visitors")
        for group, rows in (("staff", slice(0, 30)), ("visitors", slice(30, FACES))):
            count = len(users[rows])
            gallery.add_templates(
                group,
                vectors[rows],
                users[rows],
                contract=engine.contract_id,
                face_ids=[f"{i:032x}" for i in range(FACES)[rows]],
                quality=[None if i % 5 == 0 else 50.0 + i for i in range(count)],
                origin=["MANUAL" if i % 2 else "AUTO" for i in range(count)],
                created=datetime(2026, 1, 2, 3, 4, 5, 678_900, UTC),
            )
        gallery.remove("staff", user_id="u3")
        export_groups(gallery, place / "archive.jsonl")
    (place / "gallery" / "writer.lock").unlink(missing_ok=True)
    index = HnswIndex(D, m=4, ef_construction=40, deterministic=True)
    index.add(np.arange(100, 100 + FACES), vectors, np.arange(FACES) % 3)
    index.remove([103])
    generations.save(
        place / "hnsw",
        index,
        kind="hnsw",
        contract=engine.contract_id,
        watermark={"face": FACES},
        parameters=index.parameters,
    )
    table = load_pack(str(place / "pack")).pack.embedder.calibration
    own = replace(table, dataset="a user's own, invented", identities=7)
    content = CalibrationFile(1, facecore.__version__, "golden", engine.contract_id, own, table)
    write_calibration(place / "calibration.toml", content)
    facts = {
        "contract": engine.contract_id,
        "manifests": contracts,
        "vectors": base64.b64encode(vectors.astype("<f4").tobytes()).decode(),
    }
    (place / "facts.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")


def encrypted() -> None:
    place, old = HERE / "encrypted", HERE / "v0.1.0"
    shutil.copytree(old / "gallery", place / "gallery")
    rekey(place / "gallery", new_key=KEY)
    engine = TemplateEngine(old / "pack")
    with facecore.Gallery(place / "gallery", engine, read_only=True, key=KEY) as gallery:
        export_groups(gallery, place / "archive.sealed")
    for path in (place / "gallery").iterdir():
        if path.name != "gallery.db":
            path.unlink() if path.is_file() else shutil.rmtree(path)


if __name__ == "__main__":
    encrypted() if sys.argv[1:] == ["encrypted"] else main()
