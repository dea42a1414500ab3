"""A caller of the public names, read by mypy and never run."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

import facecore
from facecore.operations import FaceCompareResult, FaceService, OperationError, ServiceConfig

engine = facecore.FaceEngine(pack="compact", providers=["CPUExecutionProvider"], threads=2)
faces: list[facecore.Face] = engine.detect("a.jpg")
box: NDArray[np.float32] = engine.largest_face(b"...").box
vector: NDArray[np.float32] = engine.embed("a.jpg")
many: Iterator[NDArray[np.float32] | facecore.FacecoreError] = engine.embed_many(["a.jpg"])
result: facecore.Comparison = engine.compare("a.jpg", vector.astype(np.uint8))
cross: facecore.CrossComparison = engine.cross_compare("a", "b", "c", mode="loop")
score: float = result.score
ca: facecore.Comparison | None = cross.ca
with facecore.Gallery("staff.gallery", engine, index="exact", read_only=False) as gallery:
    group: facecore.Group = gallery.create_group("staff")
    record: facecore.FaceRecord = gallery.add("staff", "a.jpg", "u1", on_existing="replace")
    matches: list[facecore.Match] = gallery.search(b"...", ["staff"], 5, far=0.001)
    added: Iterator[facecore.FaceRecord | facecore.FacecoreError]
    added = gallery.add_many("staff", [("a.jpg", "u1")])
    removed: int = gallery.remove("staff", user_id=record.user_id) + len(gallery)


def gate(name: str) -> None:
    raise OperationError("Throttling.Api")


service = FaceService(engine, facecore.Gallery("g", engine), ServiceConfig(gate=gate))
compared: FaceCompareResult = service.face_compare("a.jpg", BytesIO())
status: int = service.call("FaceCompare", {"MerchantBizId": 1}).status
checked = service.duplication_check(b"...", "u1", mode="search", groups=["g"], auto_register=True)
age: int | None = checked.age
quality: facecore.Quality = engine.quality(engine.sample("a.jpg"))
attributes: facecore.Attributes | None = engine.attributes("a.jpg")
sharpness: float = quality.measures["sharpness"]

# mypy notices a wrong argument, because it reports an ignored line without an error.
engine.cross_compare("a", "b", "c", mode="ring")  # type: ignore[arg-type]
